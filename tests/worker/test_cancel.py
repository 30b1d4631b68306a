"""A cancel ends a job in whatever it is: claimed, saving, waiting to be tried again, pausing."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future

import pytest
from sqlalchemy import select

from api.database import transaction
from api.models import Checkpoint, Job, Status
from api.record import claim_next, request_cancel, request_pause
from api.settings import Settings, settings
from tests.conftest import wait_until
from tests.worker.jobs import (
    FOREVER,
    PROGRAM,
    STOPPED,
    claimed,
    event,
    job,
    metrics,
    processes,
    queue_job,
    rewards,
    statuses,
    work,
)
from worker.fence import now
from worker.supervisor import Run, supervise
from worker.tail import RunTail

Background = Callable[[str], Future[None]]


@pytest.fixture
def patient(quick: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Who is told to stop has all the time it needs."""
    monkeypatch.setenv("MHPO_CANCEL_GRACE_SECONDS", "60")
    settings.cache_clear()
    yield settings()
    settings.cache_clear()


def cancel(job_id: str) -> Status:
    with transaction() as session:
        return request_cancel(session, job_id)


def assert_cancelled(job_id: str, *history: str) -> None:
    ended = job(job_id)
    assert (ended.status, ended.lease_token, ended.crashes) == (Status.CANCELLED, None, history.count("queued") - 1)
    assert statuses(job_id) == [*history, "cancelled"]
    assert not processes(job_id)


def test_cancel_between_the_claim_and_the_start(quick: Settings) -> None:
    job_id = queue_job([FOREVER], STOPPED)
    claim = claimed(job_id)
    assert cancel(job_id) is Status.RUNNING
    folder = quick.run_folder(job_id)
    supervise(Run(claim, PROGRAM, folder, RunTail(claim, folder).feed), now() + quick.lease_seconds)
    assert_cancelled(job_id, "queued", "running")


def test_cancel_while_a_checkpoint_is_saved_lets_it_be_saved(patient: Settings, background: Background) -> None:
    saved = event("checkpoint", step=2, path="checkpoints/step_2", final=True)
    saving = [{"wait_for": "saved"}, {"append": {"events.jsonl": saved}}, *STOPPED]
    job_id = queue_job([{"append": {"events.jsonl": event("phase", phase="checkpointing")}}, FOREVER], saving)
    running = background(job_id)
    wait_until(lambda: job(job_id).phase == "checkpointing")
    assert cancel(job_id) is Status.RUNNING
    assert job(job_id).phase == "cancelling"
    (patient.run_folder(job_id) / "saved").touch()
    running.result(60)
    assert_cancelled(job_id, "queued", "running")
    with transaction() as session:
        assert session.scalars(select(Checkpoint.step)).all() == [2]


def test_cancel_between_two_attempts_ends_the_job_at_once(quick: Settings) -> None:
    job_id = queue_job([{"signal": "SIGKILL"}])
    work(job_id)
    assert job(job_id).not_before is not None
    assert cancel(job_id) is Status.CANCELLED
    assert_cancelled(job_id, "queued", "running", "queued")
    with transaction() as session:
        assert claim_next(session, Job, "worker-2") is None


def test_cancel_wins_over_a_pause_that_is_under_way(patient: Settings, background: Background) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], [{"wait_for": "saved"}, *STOPPED])
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    with transaction() as session:
        request_pause(session, job_id)
    assert job(job_id).phase == "pausing"
    assert cancel(job_id) is Status.RUNNING
    (patient.run_folder(job_id) / "saved").touch()
    running.result(60)
    assert_cancelled(job_id, "queued", "running")
