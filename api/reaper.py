"""Takes back what silent workers hold, and makes up for messages that the broker lost. One API process acts at a time."""

import logging

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.database import transaction
from api.idempotency import forget_old
from api.models import Evaluation, Job, Task
from api.queue import waiting
from api.record import note_lacking, reap
from api.telling import Leased, hint, not_hinted

logger = logging.getLogger(__name__)

LEADER_LOCK = 0x72656170  # "reap": an advisory lock, held by the one that acts
# In the order in which rows are locked, see api/record.py.
_TABLES: tuple[tuple[Leased, Task], ...] = ((Evaluation, Task.RUN_EVALUATION), (Job, Task.RUN_JOB))


def look() -> bool:
    """Move on what has an expired lease, and hint again at what waits with no message; False if another reaper acts.

    Raises the errors of an outage.
    """
    with transaction() as session:
        if not _leads(session):
            return False
        for table, _ in _TABLES:
            for status, keys in reap(session, table).items():
                if keys:
                    logger.warning("lease expired, now %s: %s", status, ", ".join(keys))
        note_lacking(session)
        forget_old(session)
    _replace_lost_hints()
    return True


def _replace_lost_hints() -> None:
    """An empty queue beside rows that wait means lost messages (a flushed or restored broker, a worker killed at receipt).

    The outbox is looked at before the queue: a hint that moves from one to the other meanwhile is seen in either.
    """
    with transaction() as session:
        if not _leads(session):
            return
        for table, task in _TABLES:
            keys = not_hinted(session, table)
            if keys and waiting(task) == 0:
                hint(session, table, keys)


def _leads(session: Session) -> bool:
    """Until the end of this transaction no other process reaps."""
    return bool(session.scalar(select(func.pg_try_advisory_xact_lock(LEADER_LOCK))))
