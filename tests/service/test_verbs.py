"""What people do to jobs, through real processes: pause, resume, give priority."""

import httpx
import pytest

from api.settings import Settings
from tests.service.conftest import (
    Spec,
    StartWorker,
    Train,
    curves,
    job,
    run_processes,
    statuses,
    submit,
    uninterrupted,
    wait_for,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def long(spec: Spec) -> Spec:
    """Some seconds of training, and no checkpoint before the last step."""
    return {**spec, "steps": 30, "checkpoints": {"every": 1000}}


def test_a_paused_job_holds_nothing_and_goes_on_where_it_was(
    http: httpx.Client, train: Train, long: Spec, record: Settings
) -> None:
    run = train(long, beyond=5)
    job_id, folder = run.job_id, run.folder
    asked = http.post(f"/v1/jobs/{job_id}/pause").json()
    assert (asked["status"], asked["phase"], asked["pause_requested"]) == ("running", "pausing", True)
    paused = wait_for(http, job_id, "paused")
    assert not run_processes(folder)
    assert (paused["worker"], paused["pause_requested"]) == (None, False)
    assert 5 < paused["step"] < long["steps"]
    whole = uninterrupted(http, long, record)
    assert job(http, job_id) == paused, "the worker was free for another job, and this one waited"
    assert http.post(f"/v1/jobs/{job_id}/resume").json()["status"] == "queued"
    assert wait_for(http, job_id, "succeeded")["attempt"] == 2
    assert statuses(http, job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert curves(folder) == whole
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == long["steps"], "no step was done twice"


def test_the_job_of_higher_priority_runs_first(http: httpx.Client, start_worker: StartWorker, spec: Spec) -> None:
    low = submit(http, {**spec, "steps": 1})
    high = submit(http, {**spec, "steps": 1, "priority": 5})
    start_worker()
    started = [wait_for(http, job_id, "succeeded")["started_at"] for job_id in (high, low)]
    assert started == sorted(started)
