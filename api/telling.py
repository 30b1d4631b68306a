"""What is written beside a change of a job or evaluation, in its transaction: the event that tells of it, and hints."""

from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Row, case, exists, func, insert, literal, or_, select
from sqlalchemy.orm import Session

from api.models import Evaluation, Event, Job, Json, Level, ModelKind, Outbox, Status, Task
from api.reason import Reason
from api.settings import settings

Leased = type[Job] | type[Evaluation]

_HAS = (Status.SUCCEEDED, Status.FAILED)  # a job has failed, and is queued


def told(table: Leased) -> tuple[ColumnElement[Any], ...]:
    """What an event needs to know of a row that changed: id, job_id, attempt, and in `subject` what people call it."""
    if not issubclass(table, Evaluation):
        return table.id.expression, table.id.label("job_id"), table.attempt.expression, literal("The job").label("subject")
    of_checkpoint = func.concat("The evaluation of the checkpoint of step ", table.step)
    subject = case((table.model_kind == ModelKind.BASE, "The evaluation of the base model"), else_=of_checkpoint)
    return table.id.expression, table.job_id.expression, table.attempt.expression, subject.label("subject")


def tell(
    session: Session, table: Leased, row: Row[Any], status: Status, reason: Reason | None, more: Json | None = None
) -> None:
    """The event of a row that came to be in `status`; `more` goes into its data."""
    data: Json = {"status": status, **({"reason": reason.as_json(status)} if reason else {}), **(more or {})}
    level = Level.ERROR if status is Status.FAILED else Level.INFO
    message = f"{row.subject} {'has' if status in _HAS else 'is'} {status}." + (f" {reason.message}" if reason else "")
    if table is Evaluation:
        add_event(
            session, row.job_id, 0, "evaluation", message, {**data, "evaluation_id": row.id, "attempt": row.attempt}, level
        )
    else:
        add_event(session, row.job_id, row.attempt, "status", message, data, level)


def add_event(
    session: Session, job_id: str, attempt: int, kind: str, message: str, data: Json | None = None, level: Level = Level.INFO
) -> None:
    """Write an event of the service about a job; `attempt` is 0 for what belongs to none.

    It takes the job's row, as everyone does who writes events: a reader that goes on behind the last id it saw would miss
    an event that gets its id earlier and is committed later.
    """
    session.execute(select(Job.id).where(Job.id == job_id).with_for_update(key_share=True))
    row = {"job_id": job_id, "attempt": attempt, "level": level, "type": kind, "message": message, "data": data or {}}
    session.execute(insert(Event).values(row))


def hint(session: Session, table: Leased, keys: list[str]) -> None:
    """Messages for these rows, to be published once they are due."""
    task = Task.RUN_EVALUATION if table is Evaluation else Task.RUN_JOB
    rows = select(literal(task, Outbox.task.type), table.id, table.not_before).where(table.id.in_(keys))
    session.execute(insert(Outbox).from_select(["task", "key", "not_before"], rows.order_by(table.turn_at, table.id)))


def not_hinted(session: Session, table: Leased) -> list[str]:
    """What has been queued for `hint_seconds` with no hint in the outbox that is due: it was published, and may be lost."""
    age = func.now() - timedelta(seconds=settings().hint_seconds)
    hinted = exists().where(Outbox.key == table.id, or_(Outbox.not_before.is_(None), Outbox.not_before <= func.now()))
    query = select(table.id).where(table.status == Status.QUEUED, table.queued_at < age, due(table), ~hinted)
    return list(session.scalars(query.order_by(table.turn_at, table.id)))


def due(table: Leased) -> ColumnElement[bool]:
    """Whether a queued row may be taken now: it is not waiting after a crash."""
    return or_(table.not_before.is_(None), table.not_before <= func.now())
