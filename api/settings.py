"""Deployment settings, from the environment (`MHPO_*`). What a run computes is in the job spec, not here."""

from functools import cache
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]


class Settings(BaseSettings):
    """Where the service keeps things, where it listens, and its clocks (seconds)."""

    model_config = SettingsConfigDict(env_prefix="MHPO_", frozen=True)

    database_url: str = "postgresql+psycopg://mhpo:mhpo@127.0.0.1:5432/mhpo"
    redis_url: str = "redis://127.0.0.1:6379/0"
    data_dir: Path = Path(".mhpo")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000

    lease_seconds: Annotated[Seconds, Field(description="A worker that is silent for so long has lost its job")] = 60
    heartbeat_seconds: Seconds = 10
    reaper_seconds: Annotated[Seconds, Field(description="Between two looks for expired leases")] = 15
    outbox_seconds: Annotated[Seconds, Field(description="Between two looks for hints that were not published")] = 2
    hint_seconds: Annotated[Seconds, Field(description="A queued job whose message was lost gets another after so long")] = 30
    poll_seconds: Annotated[Seconds, Field(description="Between two looks of a worker for work that no message told of")] = 15
    backoff_seconds: Annotated[Seconds, Field(description="Before another attempt, doubled with each crash")] = 5
    max_attempts: Annotated[int, Field(ge=1, description="Attempts that may crash; being asked to stop is not a crash")] = 3
    cancel_grace_seconds: Annotated[Seconds, Field(description="From TERM to KILL; longer than a checkpoint takes")] = 60

    max_body_bytes: Bytes = 1 << 20
    max_upload_bytes: Bytes = 1 << 30

    @field_validator("heartbeat_seconds")
    @classmethod
    def _two_in_a_lease(cls, heartbeat: float, info: ValidationInfo) -> float:
        if heartbeat > info.data.get("lease_seconds", heartbeat * 2) / 2:
            raise ValueError("must be at most half of MHPO_LEASE_SECONDS: a worker that misses one heartbeat keeps its job")
        return heartbeat

    def run_folder(self, job_id: str) -> Path:
        return self.data_dir.resolve() / "runs" / job_id

    def evaluation_folder(self, evaluation_id: str) -> Path:
        return self.data_dir.resolve() / "evaluations" / evaluation_id

    def files_folder(self) -> Path:
        return self.data_dir.resolve() / "files"


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
