"""Deployment settings, from the environment (`MHPO_*`). What a run computes is in the job spec, not here."""

from functools import cache, lru_cache
from ipaddress import ip_address
from pathlib import Path
from socket import gethostname
from typing import Annotated

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

Seconds = Annotated[float, Field(gt=0)]
Bytes = Annotated[int, Field(gt=0)]


def _split(value: object) -> object:
    """`a, b` of an environment variable as a list."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Folders = Annotated[tuple[Path, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Where the service keeps things, where it listens, and its clocks (seconds)."""

    model_config = SettingsConfigDict(env_prefix="MHPO_", frozen=True)

    database_url: Annotated[str, Field(repr=False)] = "postgresql+psycopg://mhpo:mhpo@127.0.0.1:5432/mhpo"
    redis_url: Annotated[str, Field(repr=False)] = "redis://127.0.0.1:6379/0"
    data_dir: Path = Path(".mhpo")
    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 8000
    api_processes: Annotated[int, Field(ge=1, le=4, description="That share the port; each uses one core at most")] = 1

    lease_seconds: Annotated[Seconds, Field(description="A worker that is silent for so long has lost its job")] = 60
    heartbeat_seconds: Seconds = 10
    reaper_seconds: Annotated[Seconds, Field(description="Between two looks for expired leases")] = 15
    outbox_seconds: Annotated[Seconds, Field(description="Between two looks for hints that were not published")] = 2
    hint_seconds: Annotated[Seconds, Field(description="A queued job whose message was lost gets another after so long")] = 30
    webhook_seconds: Annotated[Seconds, Field(description="Between two looks for webhooks to be sent")] = 2
    webhook_backoff_seconds: Annotated[
        Seconds, Field(description="Until a webhook is sent again; each time three times more")
    ] = 5
    poll_seconds: Annotated[Seconds, Field(description="Between two looks of a worker for work that no message told of")] = 15
    priority_seconds: Annotated[Seconds, Field(description="In the queue a step of priority is worth so long a wait")] = 3600
    host_name: Annotated[str, Field(min_length=1, description="Of this machine, whose workers share its GPUs")] = Field(
        default_factory=gethostname
    )
    gpu_slots: Annotated[
        int | None,
        Field(ge=0, le=64, description="GPUs that this machine leases to jobs; None: as many as nvidia-smi lists"),
    ] = None
    backoff_seconds: Annotated[Seconds, Field(description="Before another attempt, doubled with each crash")] = 5
    max_attempts: Annotated[int, Field(ge=1, description="Attempts that may crash; being asked to stop is not a crash")] = 3
    cancel_grace_seconds: Annotated[Seconds, Field(description="From TERM to KILL; longer than a checkpoint takes")] = 60

    python_graders: Annotated[bool, Field(description="Run users' code to grade, confined to computing")] = False

    max_body_bytes: Bytes = 1 << 20
    max_upload_bytes: Bytes = 1 << 30
    body_seconds: Annotated[Seconds, Field(description="A body of which nothing arrives for so long is given up")] = 30

    require_key: Annotated[bool, Field(description="On the loopback address too; anywhere else a key is always needed")] = False
    rate_limit: Annotated[
        int | None,
        Field(ge=0, description="Requests a minute of one key; 0: no limit; None: 1200, on loopback no limit"),
    ] = None
    allowed_roots: Annotated[
        Folders, Field(description="Where models and data of jobs may lie; empty: working directory and data folder")
    ] = ()
    hub_allow: Annotated[Names, Field(description="Hub ids that jobs may name, as Qwen/*; empty: all")] = ()
    trust_remote_code: Annotated[bool, Field(description="Run Python code that comes with a model")] = False
    webhook_hosts: Annotated[
        Names, Field(description="Hosts that webhooks may call, whatever their addresses; empty: all of public addresses")
    ] = ()
    grader_hosts: Annotated[Names, Field(description="Hosts that HTTP graders may call; empty: none")] = ()

    @field_validator("heartbeat_seconds")
    @classmethod
    def _two_in_a_lease(cls, heartbeat: float, info: ValidationInfo) -> float:
        if heartbeat > info.data.get("lease_seconds", heartbeat * 2) / 2:
            raise ValueError("must be at most half of MHPO_LEASE_SECONDS: a worker that misses one heartbeat keeps its job")
        return heartbeat

    @property
    def on_loopback(self) -> bool:
        """Whether only this machine reaches the API."""
        return is_loopback(self.host)

    @property
    def needs_key(self) -> bool:
        """Whether a request without an API key is refused."""
        return self.require_key or not self.on_loopback

    def run_folder(self, job_id: str) -> Path:
        return self.data_dir.resolve() / "runs" / job_id

    def evaluation_folder(self, evaluation_id: str) -> Path:
        return self.data_dir.resolve() / "evaluations" / evaluation_id

    def files_folder(self) -> Path:
        return self.data_dir.resolve() / "files"


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether `host`, a name or an address, is this machine as only this machine reaches it."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


@cache
def settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()
