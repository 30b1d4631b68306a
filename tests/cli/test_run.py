"""What a person who follows a job sees of it, over a real API."""

from collections.abc import Callable
from typing import Any

from api.database import transaction
from api.ingest import Span, store_events, store_metrics, store_resumed
from api.models import Status
from api.record import Claim, claim_job, finish
from cli.client import Client, Json
from cli.errors import ExitCode
from cli.run import Run
from tests.conftest import wait_until


def measured(*steps: int, reward: float, time: float) -> list[dict[str, Any]]:
    return [{"step": step, "time": time, "metrics": {"reward": reward}} for step in steps]


def claimed(job_id: str) -> Claim:
    with transaction() as session:
        claim = claim_job(session, job_id, "worker-1")
    assert claim is not None
    return claim


def store(claim: Claim, *steps: int, reward: float, time: float, end: int) -> None:
    with transaction() as session:
        store_metrics(session, claim, measured(*steps, reward=reward, time=time), Span("metrics.jsonl", end - 10, end))


def wait(run: Run, condition: Callable[[], object]) -> list[Json]:
    """The news up to when `condition` holds."""
    news: list[Json] = []

    def holds() -> bool:
        news.extend(run.wait(0.1))
        return bool(condition())

    wait_until(holds)
    return news


def test_a_curve_goes_back_with_its_job(spec: dict[str, Any], url: str) -> None:
    client = Client(url)
    job_id = client.post("/v1/jobs", spec)["id"]
    claim = claimed(job_id)
    store(claim, 1, 2, 3, reward=0.25, time=1.0, end=10)
    with Run.opened(client, job_id) as run:
        news = wait(run, lambda: len(run.curve("reward")) == 3)  # as it was
        assert [each["data"]["status"] for each in news if each["object"] == "event"] == ["queued", "running"]
        store(claim, 4, reward=0.25, time=1.0, end=20)
        wait(run, lambda: len(run.curve("reward")) == 4)  # as it comes
        resumed = {"time": 2.0, "step": 2, "level": "info", "type": "resumed", "message": "resumed", "data": {}}
        with transaction() as session:
            store_events(session, claim, [resumed], Span("events.jsonl", 0, 10))
            store_resumed(session, claim, 2, 2.0)
        wait(run, lambda: run.curve("reward") == [(1, 0.25), (2, 0.25)])
        store(claim, 3, reward=0.75, time=3.0, end=30)
        wait(run, lambda: run.curve("reward") == [(1, 0.25), (2, 0.25), (3, 0.75)])
        with transaction() as session:
            finish(session, claim, Status.CANCELLED, None)
        news = wait(run, lambda: run.ended is not None)
        assert run.ended is ExitCode.CANCELLED
        assert [each["data"]["status"] for each in news if each["object"] == "event"] == ["cancelled"]


def test_the_whole_of_an_ended_job_comes_as_news(spec: dict[str, Any], url: str) -> None:
    client = Client(url)
    job_id = client.post("/v1/jobs", spec)["id"]
    claim = claimed(job_id)
    store(claim, 1, 2, reward=0.25, time=1.0, end=10)
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    with Run.opened(client, job_id, whole=True) as run:
        news = wait(run, lambda: run.ended is not None)
    assert run.ended is ExitCode.DONE
    assert [each["step"] for each in news if each["object"] == "job.step"] == [1, 2]
    statuses = [each["data"]["status"] for each in news if each["object"] == "event"]
    assert statuses == ["queued", "running", "succeeded"]


def test_a_curve_begins_again_with_a_job_that_had_no_checkpoint(spec: dict[str, Any], url: str) -> None:
    client = Client(url)
    job_id = client.post("/v1/jobs", spec)["id"]
    claim = claimed(job_id)
    store(claim, 1, 2, 3, reward=0.25, time=1.0, end=10)
    with Run.opened(client, job_id) as run:
        wait(run, lambda: len(run.curve("reward")) == 3)
        store(claim, 1, reward=0.75, time=2.0, end=20)
        wait(run, lambda: run.curve("reward") == [(1, 0.75)])
