"""One turn after another: what a pool process claims and runs, whether a message or the clock has it look.

A pool process runs one thing at a time. Messages come through Redis; while that is down, or a message is lost, the look
every `MHPO_POLL_SECONDS` finds what is queued. It is a thread of the pool process itself: it starts after the fork, needs
neither Redis nor Celery's event loop (which stands still while Celery reconnects), and dies with the process.
"""

import logging
import os
import threading
from collections.abc import Sequence

from api.background import Repeated
from api.database import OUTAGES, transaction
from api.models import Evaluation, Job, Task
from api.queue import QUEUES
from api.reason import Fault, Reason
from api.record import Claim, LeaseLostError, claim_next, requeue
from api.settings import settings
from api.telling import Leased
from worker.devices import VISIBLE, place
from worker.drain import draining
from worker.fence import now
from worker.supervisor import Run, supervise
from worker.tail import RunTail

logger = logging.getLogger(__name__)

TABLES: dict[str, Leased] = {QUEUES[Task.RUN_JOB]: Job, QUEUES[Task.RUN_EVALUATION]: Evaluation}  # by queue

_turn = threading.Lock()


def take_turns(table: Leased, owner: str) -> None:
    """Run what is first in the queue to its end, after what this process runs already, and so on until nothing is due.

    Not one for each message: a job that had to wait for GPUs has had its message. While the record does not answer nothing
    is due: the hint is spent, and the poller looks again.
    """
    with _turn:
        try:
            while _take(table, owner):
                pass
        except OUTAGES as error:
            logger.warning("the record does not answer: %s", error)


def poll(tables: Sequence[Leased], owner: str) -> Repeated:
    """Looks for work in these tables every MHPO_POLL_SECONDS, unless this process has some; not yet started."""

    def look() -> None:
        for table in tables:
            while _turn.acquire(blocking=False):
                try:
                    if not _take(table, owner):
                        break
                finally:
                    _turn.release()

    return Repeated("poll", settings().poll_seconds, look)


def _take(table: Leased, owner: str) -> bool:
    asked = now()
    if draining():
        return False
    with transaction() as session:
        claim = claim_next(session, table, owner, place(os.environ.get(VISIBLE)))
    if claim is None:
        return False
    _hold(_run_of(claim), asked)
    return True


def _run_of(claim: Claim) -> Run:
    if claim.table is Evaluation:
        return Run(claim, "evaluator", settings().evaluation_folder(claim.id), _nothing_to_feed)
    folder = settings().run_folder(claim.id)
    return Run(claim, "trainer", folder, RunTail(claim, folder).feed)


def _nothing_to_feed() -> bool:
    return False


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
