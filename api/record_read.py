"""Reading the record: every query behind a GET."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import TypeVar

from sqlalchemy import ColumnElement, Select, func, select, tuple_
from sqlalchemy.orm import Session, defer

from api.models import Checkpoint, Evaluation, Event, File, Job, Json, Level, Sample, Status, StepMetrics, is_id
from api.record import UnknownJobError

Paged = TypeVar("Paged", Job, File)
_ONLY_TOLD = (defer(Job.resolved_spec), defer(Job.evaluation_spec))  # the larger part of a job's row is for its worker


def find_job(session: Session, job_id: str) -> Job:
    """The job; raises UnknownJobError."""
    job = session.get(Job, job_id, options=_ONLY_TOLD) if is_id("job", job_id) else None
    if job is None:
        raise UnknownJobError(job_id)
    return job


def page(
    session: Session,
    table: type[Paged],
    after: Job | File | None,
    limit: int,
    guards: Sequence[ColumnElement[bool]] = (),
    *,
    ascending: bool = False,
) -> tuple[list[Paged], bool]:
    """Up to `limit` rows behind `after`, newest first or `ascending`, and whether there are more."""
    place = (table.created_at, table.id)
    query: Select[Paged] = select(table).where(*guards)
    query = query.order_by(*(place if ascending else [column.desc() for column in place]))
    if after is not None:
        here = (after.created_at, after.id)
        query = query.where(tuple_(*place) > here if ascending else tuple_(*place) < here)
    if table is Job:
        query = query.options(*_ONLY_TOLD)
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def with_status(status: Status | None) -> list[ColumnElement[bool]]:
    return [] if status is None else [Job.status == status]


def events(
    session: Session, job_id: str, after: int, limit: int, levels: Sequence[Level] | None = None, *, ascending: bool = True
) -> tuple[list[Event], bool]:
    """Up to `limit` events behind the id `after` (0: from the first on), oldest or newest first, and whether there are more."""
    query = select(Event).where(Event.job_id == job_id).order_by(Event.id if ascending else Event.id.desc())
    if after:
        query = query.where(Event.id > after if ascending else Event.id < after)
    if levels is not None:
        query = query.where(Event.level.in_(levels))
    rows = list(session.scalars(query.limit(limit + 1)))
    return rows[:limit], len(rows) > limit


def measured(session: Session, job: Job, name: str) -> float | None:
    """A metric at the job's step, by the latest attempt."""
    value = StepMetrics.metrics[name].as_float()
    query = select(value).where(StepMetrics.job_id == job.id, StepMetrics.step == job.step)
    return session.scalar(query.order_by(StepMetrics.attempt.desc()).limit(1))


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


@dataclass(frozen=True, slots=True)
class CompletionFilter:
    """Which completions of a step are asked for; `grader` says whose score the bounds are of, None the whole reward."""

    min_reward: float | None = None
    max_reward: float | None = None
    grader: str | None = None
    truncated: bool | None = None

    def takes(self, completion: Json) -> bool:
        """A completion without that score (its grader failed, or there is none of that name) is not taken."""
        if self.truncated is not None and (completion.get("finish_reason") == "length") is not self.truncated:
            return False
        if (self.min_reward, self.max_reward, self.grader) == (None, None, None):
            return True
        score = completion.get("reward") if self.grader is None else completion.get("by_grader", {}).get(self.grader)
        low = -inf if self.min_reward is None else self.min_reward
        high = inf if self.max_reward is None else self.max_reward
        return isinstance(score, int | float) and low <= score <= high


def find_checkpoint(session: Session, job_id: str, step: int) -> Checkpoint | None:
    return session.get(Checkpoint, (job_id, step))
