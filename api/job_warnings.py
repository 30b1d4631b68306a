"""The warnings of a job: what its metrics show, what it said itself (events of level warn), and a worker that is silent."""

from collections.abc import Sequence
from threading import Lock
from typing import Annotated, Literal, Self

from pydantic import Field
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.history import history_of
from api.models import Event, Job, Level, Status
from api.schemas import View
from api.settings import settings
from api.warnings import Warned, warnings_of

_KEPT = 4096  # jobs whose warnings are remembered


class WarningView(View):
    """What deserves a look, and what to try."""

    object: Literal["warning"] = "warning"
    code: Annotated[str, Field(description="The rule of api/warnings.py, or the event's type")]
    source: Literal["metrics", "event"]
    message: str
    hint: Annotated[str | None, Field(description="What to try; an event says it itself")]
    metric: Annotated[str | None, Field(description="The metric that shows it")]
    step: int | None
    count: Annotated[int, Field(description="How many events of this type and level warn there are; else 1")]

    @classmethod
    def of_metrics(cls, warned: Warned) -> Self:
        return cls(
            code=warned.code,
            source="metrics",
            message=warned.message,
            hint=warned.hint,
            metric=warned.metric,
            step=warned.step,
            count=1,
        )

    @classmethod
    def of_event(cls, event: Event, count: int) -> Self:
        hint = event.data.get("hint")
        told = hint if isinstance(hint, str) else None
        return cls(code=event.type, source="event", message=event.message, hint=told, metric=None, step=event.step, count=count)


class _Remembered:
    """What a job's metrics showed, for as long as it is at that step of that attempt: pages are looked at again and again."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._found: dict[str, tuple[tuple[int, int], list[Warned]]] = {}

    def of(self, session: Session, job: Job) -> list[Warned]:
        at = (job.attempt, job.step)
        with self._lock:
            known = self._found.get(job.id)
        if known is not None and known[0] == at:
            return known[1]
        found = warnings_of(history_of(session, job)) if job.step > 0 else []
        with self._lock:
            self._found.pop(job.id, None)
            self._found[job.id] = (at, found)
            if len(self._found) > _KEPT:
                del self._found[next(iter(self._found))]
        return found


_REMEMBERED = _Remembered()


def of_job(session: Session, job: Job) -> list[WarningView]:
    """The most urgent first: the silent worker, then what the metrics show, then what the run said, newest first."""
    silent = _silence(session, [job]).get(job.id)
    measured = [] if silent is None else [_late(silent)]
    measured += _REMEMBERED.of(session, job)
    views = [WarningView.of_metrics(warned) for warned in measured]
    return views + _said(session, job.id)


def counts(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    """How many warnings each job has."""
    said = _kinds_said(session, [job.id for job in jobs])
    silent = _silence(session, jobs)
    return {job.id: len(_REMEMBERED.of(session, job)) + said.get(job.id, 0) + (job.id in silent) for job in jobs}


def _late(seconds: float) -> Warned:
    return Warned(
        "heartbeat_late",
        f"The worker has been silent for {seconds:.0f} s; after {settings().lease_seconds:g} s the job is taken from it.",
        "It may hang, or be cut off from the database. Nothing is lost: the job then goes on at its last checkpoint. "
        "The log and the worker's machine say more.",
    )


def _silence(session: Session, jobs: Sequence[Job]) -> dict[str, float]:
    """Seconds since the last heartbeat, of running jobs where one is missing."""
    running = [job.id for job in jobs if job.status is Status.RUNNING]
    if not running:
        return {}
    lease, heartbeat = settings().lease_seconds, settings().heartbeat_seconds
    silent = lease - func.extract("epoch", Job.lease_expires_at - func.now())
    late = max(lease / 2, heartbeat * 1.5)
    found = session.execute(select(Job.id, silent).where(Job.id.in_(running), Job.status == Status.RUNNING, silent > late))
    return {job_id: float(seconds) for job_id, seconds in found}


def _said(session: Session, job_id: str) -> list[WarningView]:
    """Events of level warn, one warning a kind: the newest of each, and how many there are."""
    mine = (Event.job_id == job_id, Event.level == Level.WARN)
    newest = select(func.max(Event.id).label("id"), func.count().label("count")).where(*mine).group_by(Event.type).subquery()
    query = select(Event, newest.c.count).join(newest, Event.id == newest.c.id).order_by(Event.id.desc())
    return [WarningView.of_event(event, count) for event, count in session.execute(query)]


def _kinds_said(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    mine = (Event.job_id.in_(job_ids), Event.level == Level.WARN)
    found = session.execute(select(Event.job_id, func.count(Event.type.distinct())).where(*mine).group_by(Event.job_id))
    return {job_id: count for job_id, count in found}  # noqa: C416  # rows, not pairs
