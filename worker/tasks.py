"""The Celery tasks. A message is a hint: what runs is what the record lets this worker claim."""

import logging
from typing import Any

from celery.signals import worker_process_init

from api.database import engine, transaction
from api.models import Task
from api.queue import app
from api.reason import Fault, Reason
from api.record import Claim, LeaseLostError, claim_evaluation, claim_job, requeue
from api.settings import settings
from worker.drain import draining
from worker.fence import now
from worker.presence import Presence
from worker.supervisor import Run, supervise
from worker.tail import RunTail

logger = logging.getLogger(__name__)

app.steps["worker"].add(Presence)


def _forget_connections(**_: Any) -> None:
    engine().dispose(close=False)  # those that the fork copied belong to the main process


worker_process_init.connect(_forget_connections)


@app.task(name=Task.RUN_JOB.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_job(self: Any, job_id: str) -> None:
    """Train a queued job; a duplicate or late hint does nothing."""
    asked = now()
    if draining():
        return
    with transaction() as session:
        claim = claim_job(session, job_id, self.request.hostname)
    if claim is not None:
        folder = settings().run_folder(job_id)
        _hold(Run(claim, "trainer", folder, RunTail(claim, folder).feed), asked)


@app.task(name=Task.RUN_EVALUATION.value, bind=True)  # type: ignore[untyped-decorator] # Celery has no types
def run_evaluation(self: Any, evaluation_id: str) -> None:
    """Score the model of a queued evaluation; a duplicate or late hint does nothing."""
    asked = now()
    if draining():
        return
    with transaction() as session:
        claim = claim_evaluation(session, evaluation_id, self.request.hostname)
    if claim is not None:
        _hold(Run(claim, "evaluator", settings().evaluation_folder(evaluation_id), _nothing_to_feed), asked)


def _hold(run: Run, asked: float) -> None:
    """Supervise until the claim is ended or given back, also by a fault of ours."""
    logger.info("%s: attempt %d", run.claim.id, run.claim.attempt)
    try:
        supervise(run, asked + settings().lease_seconds)
    except LeaseLostError:
        logger.warning("%s: the lease is lost; the process is dead, the record is another's", run.claim.id)
    except Exception as error:  # the border of the task: a full disk or a fault of ours costs an attempt, not the truth
        logger.exception("%s: the worker failed", run.claim.id)
        _give_back(run.claim, error)


def _give_back(claim: Claim, error: Exception) -> None:
    reason = Reason("worker_error", Fault.INFRA, f"The worker failed: {type(error).__name__}: {error}", retryable=True)
    with transaction() as session:
        requeue(session, claim, reason, crashed=True)


def _nothing_to_feed() -> bool:
    return False
