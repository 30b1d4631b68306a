"""The relay: publishes the hints that were committed, and only those."""

from sqlalchemy import delete, func, or_, select

from api.database import transaction
from api.models import Outbox
from api.queue import publish_all

_BATCH = 100


def drain() -> int:
    """Publish what is due in the outbox, oldest first; returns how many hints. Raises the errors of an outage.

    Relays of several API processes share the work: each takes rows that no other has locked. A hint is deleted after it
    was published, so a crash in between publishes it twice, which a claim makes harmless.
    """
    published = 0
    while count := _drain_batch():
        published += count
    return published


def _drain_batch() -> int:
    with transaction() as session:
        due = or_(Outbox.not_before.is_(None), Outbox.not_before <= func.now())
        query = select(Outbox).where(due).order_by(Outbox.id).limit(_BATCH).with_for_update(skip_locked=True)
        hints = session.scalars(query).all()
        if hints:
            publish_all((hint.task, hint.key) for hint in hints)
        session.execute(delete(Outbox).where(Outbox.id.in_([hint.id for hint in hints])))
        return len(hints)
