"""Reading the record: every query behind a GET."""

from collections.abc import Sequence
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from api.models import Checkpoint, Evaluation, Event, File, Job, Json, Sample, Status, StepMetrics, is_id
from api.record import UnknownJobError
from api.schemas import Series

Paged = TypeVar("Paged", Job, File)


def find_job(session: Session, job_id: str) -> Job:
    """The job; raises UnknownJobError."""
    job = session.get(Job, job_id) if is_id("job", job_id) else None
    if job is None:
        raise UnknownJobError(job_id)
    return job


def page(
    session: Session, table: type[Paged], after: Job | File | None, limit: int, guards: Sequence[ColumnElement[bool]] = ()
) -> tuple[list[Paged], bool]:
    """Up to `limit` rows behind `after`, newest first, and whether there are more."""
    query: Select[Paged] = select(table).where(*guards).order_by(table.created_at.desc(), table.id.desc())
    if after is not None:
        query = query.where(tuple_(table.created_at, table.id) < (after.created_at, after.id))
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def with_status(status: Status | None) -> list[ColumnElement[bool]]:
    return [] if status is None else [Job.status == status]


def metrics(session: Session, job_id: str, wanted: Sequence[str] | None, from_step: int) -> tuple[list[str], dict[str, Series]]:
    """(every metric's name, the curves asked for or all), from `from_step` to the job's step.

    Of a step the latest attempt counts; what was done after a checkpoint that the job went back to does not.
    """
    query = (
        select(StepMetrics.step, StepMetrics.metrics)
        .join(Job, Job.id == StepMetrics.job_id)
        .where(StepMetrics.job_id == job_id, StepMetrics.step >= from_step, StepMetrics.step <= Job.step)
        .ext(distinct_on(StepMetrics.step))
        .order_by(StepMetrics.step, StepMetrics.attempt.desc())
    )
    rows = session.execute(query).all()
    names = sorted({name for _, measured in rows for name in measured})
    return names, {name: _series(name, [(step, measured) for step, measured in rows]) for name in wanted or names}


def _series(name: str, rows: Sequence[tuple[int, Json]]) -> Series:
    points = [(step, measured[name]) for step, measured in rows if name in measured]
    return Series(step=[step for step, _ in points], value=[value for _, value in points])


def events(session: Session, job_id: str, after: int, limit: int) -> tuple[list[Event], bool]:
    """Up to `limit` events behind the id `after`, oldest first, and whether there are more."""
    query = select(Event).where(Event.job_id == job_id, Event.id > after).order_by(Event.id).limit(limit + 1)
    rows = list(session.scalars(query))
    return rows[:limit], len(rows) > limit


def checkpoints(session: Session, job_id: str) -> Sequence[Checkpoint]:
    """In the order of their steps."""
    return session.scalars(select(Checkpoint).where(Checkpoint.job_id == job_id).order_by(Checkpoint.step)).all()


def best_step(found: Sequence[Checkpoint]) -> int | None:
    """The step of the checkpoint with the highest validation reward, the first of equal ones; None where none has one."""
    rewards = {each.step: each.validation_reward for each in found if each.validation_reward is not None}
    return max(sorted(rewards), key=rewards.__getitem__, default=None)


def evaluations(session: Session, job_id: str) -> Sequence[Evaluation]:
    """The base model's first, then in the order of their steps."""
    return session.scalars(select(Evaluation).where(Evaluation.job_id == job_id).order_by(Evaluation.step, Evaluation.id)).all()


def samples(session: Session, job_id: str, step: int | None) -> Sequence[Sample]:
    """What the latest attempt sampled in `step`, or in the latest step that has samples; up to the job's step, as `metrics`."""
    done = select(Job.step).where(Job.id == job_id).scalar_subquery()
    of_job = (Sample.job_id == job_id, Sample.step <= done)
    if step is None:
        step = session.scalar(select(func.max(Sample.step)).where(*of_job))
    attempt = session.scalar(select(func.max(Sample.attempt)).where(*of_job, Sample.step == step))
    mine = (*of_job, Sample.step == step, Sample.attempt == attempt)
    return session.scalars(select(Sample).where(*mine).order_by(Sample.position)).all()
