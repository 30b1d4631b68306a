"""Jobs whose program does what their spec says (`tests/worker/program.py`), and what the record has of them."""

import json
from typing import Any

import psutil
from sqlalchemy import select

from api.database import transaction
from api.models import Event, Job, StepMetrics
from api.record import Claim, claim_job, create_job
from api.settings import settings
from worker.fence import now
from worker.supervisor import Run, supervise
from worker.tail import RunTail

PROGRAM = "tests.worker.program"
Act = dict[str, Any]
FOREVER: Act = {"sleep": 600}
SUCCEEDED = {"status": "succeeded", "fault": None, "code": "succeeded", "message": "done", "step": 2}
END: list[Act] = [{"result": SUCCEEDED}, {"exit": 0}]
STOPPED: list[Act] = [{"result": {**SUCCEEDED, "status": "stopped"}}, {"exit": 75}]


def failed(fault: str, code: str, message: str) -> Act:
    return {"status": "failed", "fault": fault, "code": code, "message": message, "step": 1}


def metrics(*steps: int, reward: float = 0.5) -> str:
    return "".join(json.dumps({"step": s, "time": 1760000000.0, "metrics": {"reward": reward}}) + "\n" for s in steps)


def event(kind: str, **data: Any) -> str:
    line = {"time": 1760000000.0, "step": 2, "level": "info", "type": kind, "message": kind, "data": data}
    return json.dumps(line) + "\n"


def sample(problem: str) -> str:
    completion = {"text": "a\x00b", "reward": 1.0}
    line = {"step": 1, "problem_id": problem, "prompt": "1+1=", "answer": "2", "completions": [completion]}
    return json.dumps(line) + "\n"


def queue_job(acts: list[Act], on_term: Any = None, benchmarks: bool = False) -> str:
    evaluation = {"model": {"path": "base", "revision": None}} if benchmarks else None
    spec = {
        "name": None,
        "priority": 0,
        "steps": 2,
        "checkpoints": {"every": 2},
        "evaluation": {"every": None, "base": True},
        "acts": acts,
        "on_term": on_term,
    }
    with transaction() as session:
        return create_job(session, spec, spec, evaluation)


def claimed(job_id: str) -> Claim:
    with transaction() as session:
        claim = claim_job(session, job_id, "test")
    assert claim is not None
    return claim


def work(job_id: str) -> None:
    """What the task does with a queued job."""
    claim = claimed(job_id)
    folder = settings().run_folder(job_id)
    supervise(Run(claim, PROGRAM, folder, RunTail(claim, folder).feed), now() + settings().lease_seconds)


def job(job_id: str) -> Job:
    with transaction() as session:
        return session.scalars(select(Job).where(Job.id == job_id)).one()


def rewards(job_id: str) -> dict[tuple[int, int], float]:
    """(attempt, step) -> reward"""
    with transaction() as session:
        rows = session.scalars(select(StepMetrics).where(StepMetrics.job_id == job_id)).all()
    return {(row.attempt, row.step): row.metrics["reward"] for row in rows}


def events(job_id: str, kind: str) -> list[Event]:
    with transaction() as session:
        return list(session.scalars(select(Event).where(Event.job_id == job_id, Event.type == kind).order_by(Event.id)))


def statuses(job_id: str) -> list[str]:
    return [event.data["status"] for event in events(job_id, "status")]


def processes(job_id: str) -> list[psutil.Process]:
    """The live processes of a job, found by its folder in their command line."""
    folder = str(settings().run_folder(job_id))
    return [
        process
        for process in psutil.process_iter(["cmdline", "status"])
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(folder in part for part in process.info["cmdline"] or ())
    ]
