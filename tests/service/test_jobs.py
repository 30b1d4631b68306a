"""A job's whole path through real processes: POST, a Celery worker, the trainer, and back out over HTTP."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select

from api.database import transaction
from api.models import Worker
from api.settings import Settings
from tests.conftest import wait_until
from tests.service.conftest import (
    PATIENCE,
    Spec,
    StartWorker,
    curves,
    job,
    recorded_steps,
    reproducible,
    run_processes,
    submit,
    wait_for,
)
from trainer.config import JobSpec


def read(http: httpx.Client, job_id: str, what: str) -> Any:
    return http.get(f"/v1/jobs/{job_id}/{what}").raise_for_status().json()


def recorded_curves(http: httpx.Client, job_id: str) -> dict[int, dict[str, float]]:
    """step -> metrics, as the API tells them, without those that measure the machine"""
    steps: dict[int, dict[str, float]] = {}
    for name, curve in read(http, job_id, "metrics")["series"].items():
        for step, value in zip(curve["step"], curve["value"], strict=True):
            steps.setdefault(step, {})[name] = value
    return {step: reproducible(metrics) for step, metrics in steps.items()}


def present() -> list[tuple[str, int]]:
    """Queue and process id of the workers that the record knows."""
    with transaction() as session:
        return [(worker.queue, worker.pid) for worker in session.scalars(select(Worker))]


def test_a_job_runs_and_its_record_is_its_run_folder(
    http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings
) -> None:
    worker = start_worker()
    job_id = submit(http, spec)
    ended = wait_for(http, job_id, "succeeded")
    assert present() == [("gpu", worker.pid)]
    folder = record.run_folder(job_id)
    assert (ended["step"], ended["attempt"], ended["phase"], ended["status_reason"]) == (6, 1, None, None)
    assert recorded_curves(http, job_id) == curves(folder)
    assert [(row["step"], row["final"], row["available"]) for row in read(http, job_id, "checkpoints")["data"]] == [
        (2, False, True),
        (4, False, True),
        (6, True, True),
    ]
    samples = read(http, job_id, "samples")["data"]
    written = [json.loads(line) for line in (folder / "samples/step_6.jsonl").read_text().splitlines()]
    for row in samples:
        assert [completion.pop("index") for completion in row["completions"]] == list(range(len(row["completions"])))
    assert [{key: row[key] for key in written[0]} for row in samples] == written
    events = read(http, job_id, "events")["data"]
    assert [event["data"]["status"] for event in events if event["type"] == "status"] == ["queued", "running", "succeeded"]
    assert {event["data"]["phase"] for event in events if event["type"] == "phase"} >= {"loading_model", "rollout", "learning"}
    assert not [event for event in events if event["level"] != "info"]
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert present() == []


@pytest.mark.slow
def test_the_service_computes_what_the_trainer_alone_computes(
    http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings, tmp_path: Path
) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    (alone / "config.json").write_text(json.dumps(spec))
    assert subprocess.run([sys.executable, "-m", "trainer", str(alone / "config.json")], check=False).returncode == 0
    start_worker()
    job_id = submit(http, spec)
    wait_for(http, job_id, "succeeded")
    assert len(curves(alone)) == spec["steps"]
    assert recorded_curves(http, job_id) == curves(alone)
    assert JobSpec.parse(json.loads((record.run_folder(job_id) / "config.json").read_text())) == JobSpec.parse(spec)


@pytest.mark.slow
def test_base_and_final_checkpoint_are_evaluated(http: httpx.Client, start_worker: StartWorker, spec: Spec, tiny: Path) -> None:
    start_worker()
    start_worker("evaluator", "eval")
    spec["evaluation"] = {"benchmarks": [str(tiny / "heldout.jsonl")], "samples": 2}
    job_id = submit(http, spec)
    wait_for(http, job_id, "succeeded")

    def evaluations() -> list[Any]:
        return list(read(http, job_id, "evaluations")["data"])

    wait_until(lambda: all(row["status"] not in {"queued", "running"} for row in evaluations()), PATIENCE)
    rows = evaluations()
    assert [(row["model_kind"], row["step"], row["status"]) for row in rows] == [
        ("base", 0, "succeeded"),
        ("checkpoint", 6, "succeeded"),
    ]
    for row in rows:
        scores = row["result"]["benchmarks"]["heldout"]
        assert (scores["n"], scores["problems"]) == (2, 4)
        assert 0 <= scores["ci_low"] <= scores["avg"] <= scores["ci_high"] <= 1
    told = [event["data"] for event in read(http, job_id, "events?limit=1000")["data"] if event["type"] == "evaluation"]
    assert {data["evaluation_id"] for data in told if data["status"] == "succeeded"} == {row["id"] for row in rows}
    averages = [row["result"]["benchmarks"]["heldout"]["avg"] for row in rows]
    assert read(http, job_id, "metrics")["series"]["eval/heldout/avg"] == {"step": [0, 6], "value": averages}
    assert read(http, job_id, "checkpoints")["data"][-1]["scores"]["heldout"]["avg"] == averages[1]
    answered = read(http, job_id, f"evaluations/{rows[1]['id']}/rows/heldout")["data"]
    assert [len(row["completions"]) for row in answered] == [2] * 4


@pytest.mark.slow
def test_the_same_base_model_is_scored_once(http: httpx.Client, start_worker: StartWorker, spec: Spec, tiny: Path) -> None:
    start_worker("evaluator", "eval")
    spec["evaluation"] = {"benchmarks": [str(tiny / "heldout.jsonl")], "samples": 2}
    jobs = [submit(http, {**spec, "seed": 1234, "name": name}) for name in ("first", "second")]  # no other test's seed

    def results() -> list[Any]:
        return [row["result"] for job_id in jobs for row in read(http, job_id, "evaluations")["data"]]

    wait_until(lambda: all(result is not None for result in results()), PATIENCE)
    first, second = (result["benchmarks"]["heldout"] for result in results())
    assert (first["cached"], second["cached"]) == (False, True)
    assert {**second, "cached": False} == first


@pytest.mark.slow
def test_an_evaluation_that_fails_does_not_fail_its_job(
    http: httpx.Client, start_worker: StartWorker, spec: Spec, tmp_path: Path
) -> None:
    start_worker()
    start_worker("evaluator", "eval")
    benchmark = tmp_path / "heldout.jsonl"
    benchmark.write_text('{"problem": "1+1=", "answer": "2"}\n')
    spec["evaluation"] = {"benchmarks": [str(benchmark)], "base": False}
    job_id = submit(http, spec)
    benchmark.unlink()
    wait_for(http, job_id, "succeeded")
    wait_until(lambda: [row["status"] for row in read(http, job_id, "evaluations")["data"]] == ["failed"], PATIENCE)
    (row,) = read(http, job_id, "evaluations")["data"]
    assert row["status_reason"]["fault"] == "user"
    assert job(http, job_id)["status"] == "succeeded"


@pytest.mark.slow
def test_a_fault_of_the_user_found_late_is_told_as_such(http: httpx.Client, start_worker: StartWorker, spec: Spec) -> None:
    data = Path(spec["dataset"]["path"]).with_name("soon_gone.jsonl")
    data.write_text('{"problem": "1+1=", "answer": "2"}\n')
    job_id = submit(http, {**spec, "dataset": {"path": str(data)}})
    data.unlink()
    start_worker()
    reason = wait_for(http, job_id, "failed")["status_reason"]
    assert (reason["fault"], reason["retryable"]) == ("user", False)
    assert str(data) in reason["message"]


@pytest.mark.slow
def test_cancel_while_queued(http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings) -> None:
    first = submit(http, spec)
    assert http.post(f"/v1/jobs/{first}/cancel").json()["status"] == "cancelled"
    start_worker()
    second = submit(http, spec)
    wait_for(http, second, "succeeded")
    assert (job(http, first)["status"], job(http, first)["attempt"]) == ("cancelled", 0)
    assert not record.run_folder(first).exists(), "the hint that was left in the queue started nothing"


@pytest.mark.slow
def test_cancel_while_running_keeps_a_checkpoint_and_no_process(
    http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings, tiny: Path
) -> None:
    start_worker()
    spec["evaluation"] = {"benchmarks": [str(tiny / "heldout.jsonl")]}
    job_id = submit(http, {**spec, "steps": 10_000, "checkpoints": {"every": 5000}})
    wait_until(lambda: recorded_steps(http, job_id) > 0, PATIENCE)
    folder = record.run_folder(job_id)
    assert run_processes(folder)
    asked = http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (asked["status"], asked["phase"], asked["cancel_requested"]) == ("running", "cancelling", True)
    wait_for(http, job_id, "cancelled")
    assert not run_processes(folder)
    assert [row["available"] for row in read(http, job_id, "checkpoints")["data"]] == [True]
    assert [row["status"] for row in read(http, job_id, "evaluations")["data"]] == ["cancelled"]
    assert http.post(f"/v1/jobs/{job_id}/cancel").status_code == 409
