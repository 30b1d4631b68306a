"""What people do to jobs, through real processes: pause, resume, give priority."""

import httpx
import pytest

from api import slots
from api.database import transaction
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
    return {**spec, "steps": 30, "checkpoints": {"every": 1000}, "resources": {"threads": 1, "gpus": 2}}


def test_a_paused_job_holds_nothing_and_goes_on_where_it_was(
    http: httpx.Client, train: Train, long: Spec, record: Settings
) -> None:
    """Its GPUs included: their number is a setting, and a trainer that finds none of them goes to the CPU."""
    run = train(long, beyond=5, MHPO_GPU_SLOTS="3", MHPO_HOST_NAME="box")
    job_id, folder = run.job_id, run.folder
    too_wide = submit(http, {**long, "resources": {"device": "cuda", "gpus": 4}})
    assert [job(http, job_id)[key] for key in ("host", "devices")] == ["box", [0, 1]]
    assert leased() == [job_id, job_id, None]
    assert {each.environ()["CUDA_VISIBLE_DEVICES"] for each in run_processes(folder)} == {"0,1"}
    asked = http.post(f"/v1/jobs/{job_id}/pause").json()
    assert (asked["status"], asked["phase"], asked["pause_requested"]) == ("running", "pausing", True)
    paused = wait_for(http, job_id, "paused")
    assert not run_processes(folder)
    assert (paused["worker"], paused["pause_requested"], paused["host"], paused["devices"]) == (None, False, None, None)
    assert leased() == [None, None, None]
    assert 5 < paused["step"] < long["steps"]
    whole = uninterrupted(http, long, record)
    assert job(http, job_id) == paused, "the worker was free for another job, and this one waited"
    assert http.post(f"/v1/jobs/{job_id}/resume").json()["status"] == "queued"
    assert wait_for(http, job_id, "succeeded")["attempt"] == 2
    assert statuses(http, job_id) == ["queued", "running", "paused", "queued", "running", "succeeded"]
    assert curves(folder) == whole
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == long["steps"], "no step was done twice"
    assert job(http, too_wide)["status_reason"]["message"].endswith("the largest, box, has 3.")


def test_the_job_of_higher_priority_runs_first(http: httpx.Client, start_worker: StartWorker, spec: Spec) -> None:
    low = submit(http, {**spec, "steps": 1})
    high = submit(http, {**spec, "steps": 1, "priority": 5})
    start_worker()
    started = [wait_for(http, job_id, "succeeded")["started_at"] for job_id in (high, low)]
    assert started == sorted(started)


def leased() -> list[str | None]:
    """The job that has each GPU, by index."""
    with transaction() as session:
        return [slot.job_id for slot in slots.slots(session)]
