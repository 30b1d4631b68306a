"""What a person who follows a job sees of its curve, over a real API."""

from typing import Any

from api.database import transaction
from api.ingest import Span, store_events, store_metrics, store_resumed
from api.record import Claim, claim_job
from cli.client import Client
from cli.run import Run


def measured(*steps: int, reward: float, time: float) -> list[dict[str, Any]]:
    return [{"step": step, "time": time, "metrics": {"reward": reward}} for step in steps]


def claimed(job_id: str) -> Claim:
    with transaction() as session:
        claim = claim_job(session, job_id, "worker-1")
    assert claim is not None
    return claim


def test_a_curve_goes_back_with_its_job(spec: dict[str, Any], url: str) -> None:
    client = Client(url)
    run = Run(client, client.post("/v1/jobs", spec)["id"])
    claim = claimed(run.id)
    with transaction() as session:
        store_metrics(session, claim, measured(1, 2, 3, 4, reward=0.25, time=1.0), Span("metrics.jsonl", 0, 10))
    run.poll()
    assert run.curve("reward") == [(1, 0.25), (2, 0.25), (3, 0.25), (4, 0.25)]
    resumed = {"time": 2.0, "step": 2, "level": "info", "type": "resumed", "message": "resumed", "data": {}}
    with transaction() as session:
        store_events(session, claim, [resumed], Span("events.jsonl", 0, 10))
        store_resumed(session, claim, 2, 2.0)
    run.poll()
    assert run.curve("reward") == [(1, 0.25), (2, 0.25)]
    with transaction() as session:
        store_metrics(session, claim, measured(3, reward=0.75, time=3.0), Span("metrics.jsonl", 10, 20))
    run.poll()
    assert run.curve("reward") == [(1, 0.25), (2, 0.25), (3, 0.75)]


def test_a_curve_begins_again_with_a_job_that_had_no_checkpoint(spec: dict[str, Any], url: str) -> None:
    client = Client(url)
    run = Run(client, client.post("/v1/jobs", spec)["id"])
    claim = claimed(run.id)
    with transaction() as session:
        store_metrics(session, claim, measured(1, 2, 3, reward=0.25, time=1.0), Span("metrics.jsonl", 0, 10))
    run.poll()
    with transaction() as session:
        store_metrics(session, claim, measured(1, reward=0.75, time=2.0), Span("metrics.jsonl", 10, 20))
    run.poll()
    assert run.curve("reward") == [(1, 0.75)]
