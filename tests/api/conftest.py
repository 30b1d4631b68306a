"""A spec whose sources exist, and jobs made of it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from api.database import engine, transaction
from api.models import Json
from api.preflight import plan
from api.record import Claim, claim_job, create_job
from api.settings import Settings, settings
from cli import embedded
from tests.api.locked import new_key
from tests.conftest import ASLEEP, ApiServer, api_server
from trainer.config import JobSpec


@pytest.fixture
def spec(tmp_path: Path) -> Json:
    """A job of ten steps, a checkpoint each five, with its model and dataset on disk."""
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    dataset = tmp_path / "sums.jsonl"
    dataset.write_text("".join(json.dumps({"problem": f"{n}+1=", "answer": str(n + 1)}) + "\n" for n in range(20)))
    return {
        "name": "sums",
        "steps": 10,
        "model": {"path": str(model)},
        "dataset": {"path": str(dataset)},
        "rollout": {"prompts_per_step": 4, "group_size": 2},
        "checkpoints": {"every": 5},
    }


@pytest.fixture
def new_job(record: Settings, spec: Json) -> Callable[..., str]:
    """Makes a queued job of the spec with some of its top-level keys replaced."""

    def make(**changes: Any) -> str:
        with transaction() as session:
            return create_job(session, *plan(session, JobSpec.parse({**spec, **changes})).as_json())

    return make


@pytest.fixture
def running(new_job: Callable[..., str]) -> Callable[..., Claim]:
    """Makes a job and claims it."""

    def make(**changes: Any) -> Claim:
        return claimed(new_job(**changes))

    return make


@pytest.fixture(scope="session")
def locked_api(servers: embedded.Servers) -> Iterator[ApiServer]:
    """An API that wants a key, for the whole run."""
    new_key()
    log = settings().data_dir / "logs" / "locked-api.log"
    with api_server(log, MHPO_REQUIRE_KEY="true", MHPO_BODY_SECONDS="0.5", **ASLEEP) as server:
        yield server


@pytest.fixture
def locked(record: Settings, locked_api: ApiServer) -> ApiServer:
    """The API that wants a key, over an empty record."""
    return locked_api


def claimed(job_id: str, owner: str = "worker-1") -> Claim:
    with transaction() as session:
        claim = claim_job(session, job_id, owner)
    assert claim is not None
    return claim


def rows(query: str, **values: object) -> list[tuple[Any, ...]]:
    """What a query gives, read in a transaction of its own."""
    with engine().connect() as connection:
        return [tuple(row) for row in connection.execute(text(query), values)]


def statuses(job_id: str) -> list[str]:
    """The statuses that the job's events tell of, in their order."""
    query = "SELECT data ->> 'status' FROM events WHERE job_id = :job_id AND type = 'status' ORDER BY id"
    return [status for (status,) in rows(query, job_id=job_id)]


def expire_leases() -> None:
    """As if every worker had been silent for longer than its lease."""
    with engine().begin() as connection:
        for table in ("jobs", "evaluations"):
            connection.execute(
                text(f"UPDATE {table} SET lease_expires_at = now() - interval '1 second' WHERE status = 'running'")
            )
