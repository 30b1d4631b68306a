"""The one file that writes `status`: jobs and evaluations are created, claimed, held and ended here.

Every function works in the caller's transaction. Each change of status is one guarded UPDATE; no row changed means that
someone else won. The event that tells of a change is written in the same transaction. All times are the database's.
Rows are locked evaluation first, then its job, so that no two transactions wait for each other.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, and_, case, func, insert, literal, or_, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import InstrumentedAttribute, Session

from api import slots
from api.lineage import Lineage
from api.models import TERMINAL, Evaluation, Job, Json, ModelKind, Phase, Status, new_id
from api.reason import CANCELLED, PAUSED, WORKER_LOST, Reason
from api.settings import settings
from api.slots import Place
from api.telling import Leased, add_event, due, hint, tell, told


class LeaseLostError(Exception):
    """Someone else holds the row, or it has ended: nothing was written, and the holder must stop its process."""


class UnknownJobError(LookupError):
    """No job has this id."""


class JobEndedError(Exception):
    """The job is in a terminal status, which never changes."""

    def __init__(self, status: Status) -> None:
        super().__init__(f"the job has already {status}" if status is Status.SUCCEEDED else f"the job is already {status}")
        self.status = status


class WrongStatusError(Exception):
    """What was asked for does not go with the status of the job; the message says which that is."""


NOWHERE = Place("", 0)
_MOST_DOUBLINGS = 10  # of the wait between attempts
_WAITING = (Status.VALIDATING_FILES, Status.QUEUED)


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to run a job or evaluation and to write about it, until the lease is lost."""

    table: Leased
    id: str  # of the job or evaluation
    job_id: str
    lease_token: UUID
    attempt: int  # from 1
    spec: Json  # JobSpec or EvaluationSpec, as it goes to config.json
    devices: tuple[int, ...] = ()  # indices of the GPUs of its host that are leased with it


class Lease(StrEnum):
    """What a heartbeat found."""

    HELD = "held"
    CANCEL_REQUESTED = "cancel_requested"  # still held: stop the process, then `finish` as cancelled
    PAUSE_REQUESTED = "pause_requested"  # still held: stop the process, then `requeue`, which pauses
    LOST = "lost"  # kill the process group and leave


def create_job(session: Session, spec: Json, resolved: Json, evaluation: Json | None, lineage: Lineage | None = None) -> str:
    """Insert a queued job with its event and hint, and the evaluation of its base model where the spec asks for one.

    `spec` is what the user asked for, `resolved` what runs (paths absolute), `evaluation` an EvaluationSpec of the
    base model or None, `lineage` the job that it is made from. Returns the id.
    """
    job_id = new_id("job")
    resources = {"device": "auto", "gpus": 1, **spec.get("resources", {})}
    lacks = slots.lacking(session, resources["device"], resources["gpus"])
    session.execute(
        insert(Job).values(
            id=job_id,
            name=spec["name"],
            spec=spec,
            resolved_spec=resolved,
            evaluation_spec=evaluation,
            status=Status.QUEUED,
            steps=spec["steps"],
            priority=spec["priority"],
            turn_at=_turn(spec["priority"]),
            device=resources["device"],
            gpus=resources["gpus"],
            status_reason=lacks and lacks.as_json(Status.QUEUED),
            parent_id=lineage and lineage.parent_id,
            diff=lineage and lineage.diff,
        )
    )
    origin = {"parent_id": lineage.parent_id} if lineage else {}
    message = "The job is queued." + (f" {lacks.message}" if lacks else "")
    add_event(session, job_id, 0, "status", message, {"status": Status.QUEUED, **origin})
    hint(session, Job, [job_id])
    if evaluation is not None and spec["evaluation"]["base"]:
        schedule_evaluation(session, job_id, ModelKind.BASE, 0, evaluation)
    return job_id


def schedule_evaluation(session: Session, job_id: str, kind: ModelKind, step: int, spec: Json) -> str | None:
    """Queue an evaluation with its hint; None if this model of this job already has one."""
    priority = select(Job.priority).where(Job.id == job_id).scalar_subquery()
    row = {
        "id": new_id("eval"),
        "job_id": job_id,
        "model_kind": kind,
        "step": step,
        "spec": spec,
        "status": Status.QUEUED,
        "priority": priority,
        "turn_at": _turn(priority),
    }
    made = session.execute(upsert(Evaluation).values(row).on_conflict_do_nothing().returning(*told(Evaluation))).one_or_none()
    if made is None:
        return None
    tell(session, Evaluation, made, Status.QUEUED, None)
    hint(session, Evaluation, [made.id])
    return str(made.id)


def claim_next(session: Session, table: Leased, owner: str, place: Place = NOWHERE) -> Claim | None:
    """Take the queued job or evaluation whose turn it is, by priority and age; None if none is due that can run at `place`.

    `owner` names the worker for people. What another worker is about to take is passed over. A job gets as many GPUs of the
    worker's host as it asks for: it, or none before it that waits for GPUs of this host, must find them free.
    """
    waiting: tuple[ColumnElement[bool], ...] = (table.status == Status.QUEUED, ~table.cancel_requested, due(table))
    if table is Job:
        slots.offer(session, place)
        waiting = (*waiting, slots.needed(place) <= slots.room(session, place, and_(*waiting)))
    query = select(table.id).where(*waiting).order_by(table.turn_at, table.id).limit(1)
    key = session.scalar(query.with_for_update(skip_locked=True, key_share=True))
    return None if key is None else _claim(session, table, key, owner, place)


def claim_job(session: Session, job_id: str, owner: str, place: Place = NOWHERE) -> Claim | None:
    """Take this queued job, whether or not it is its turn; None if it is not queued (any more), or lacks GPUs there."""
    slots.offer(session, place)
    return _claim(session, Job, job_id, owner, place)


def claim_evaluation(session: Session, evaluation_id: str, owner: str) -> Claim | None:
    """Take this queued evaluation, whether or not it is its turn; None if it is not queued (any more)."""
    return _claim(session, Evaluation, evaluation_id, owner, NOWHERE)


def _claim(session: Session, table: Leased, key: str, owner: str, place: Place) -> Claim | None:
    """The lease and, of a job, its GPUs: all of it or nothing."""
    guards = (table.id == key, table.status == Status.QUEUED, ~table.cancel_requested)
    count = slots.needed(place) if table is Job else literal(0)
    wanted = session.scalar(select(count).where(*guards).with_for_update(key_share=True, of=table))
    devices = None if wanted is None else slots.lock_free(session, place, wanted)
    if devices is None:
        return None
    spec = table.spec if table is Evaluation else Job.resolved_spec
    taken = session.execute(
        update(table)
        .where(*guards)
        .values(
            status=Status.RUNNING,
            phase=case((table.attempt > 0, Phase.RECOVERING), else_=Phase.PROVISIONING),
            status_reason=None,
            not_before=None,
            attempt=table.attempt + 1,
            lease_owner=owner,
            lease_token=func.gen_random_uuid(),
            lease_expires_at=_lease_end(),
            lease_host=place.host or None,
            lease_devices=devices if table is Job else None,
            started_at=func.coalesce(table.started_at, func.now()),
        )
        .returning(*told(table), table.lease_token, spec.label("document"))
        .execution_options(synchronize_session=False)
    ).one()
    slots.lease(session, place, devices, taken.lease_token)
    where = {"host": place.host, "devices": devices} if table is Job and place.host else {}
    tell(session, table, taken, Status.RUNNING, None, where)
    return Claim(table, key, taken.job_id, taken.lease_token, taken.attempt, taken.document, tuple(devices))


def heartbeat(session: Session, claim: Claim) -> Lease:
    """Extend the lease; tells whether it is still held and whether the job is to be cancelled or paused."""
    asked = session.execute(
        update(claim.table)
        .where(*_held(claim))
        .values(lease_expires_at=_lease_end())
        .returning(claim.table.cancel_requested, claim.table.pause_requested)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if asked is None:
        return Lease.LOST
    if asked.cancel_requested:
        return Lease.CANCEL_REQUESTED
    return Lease.PAUSE_REQUESTED if asked.pause_requested else Lease.HELD


def hold(session: Session, claim: Claim) -> None:
    """Keep the row from changing hands until this transaction ends; raises LeaseLostError where it already has."""
    if session.scalar(select(claim.table.id).where(*_held(claim)).with_for_update(key_share=True)) is None:
        raise LeaseLostError(claim.id)


def set_phase(session: Session, claim: Claim, phase: Phase) -> None:
    """Say what the run is doing; one that is being cancelled or paused stays in that phase. Raises LeaseLostError."""
    table = claim.table
    changed = session.scalar(
        update(table)
        .where(*_held(claim))
        .values(phase=case((or_(table.cancel_requested, table.pause_requested), table.phase), else_=phase))
        .returning(table.id)
        .execution_options(synchronize_session=False)
    )
    if changed is None:
        raise LeaseLostError(claim.id)


def finish(session: Session, claim: Claim, status: Status, reason: Reason | None, result: Json | None = None) -> bool:
    """End a job or evaluation in a terminal status; False if the lease was lost, and nothing was written.

    `reason` is None for succeeded. `result` is the evaluation's `result.json`; a job has none.
    """
    if status not in TERMINAL:
        raise ValueError(f"{status} is no terminal status")
    values = {} if result is None else {"result": result}
    return bool(_end(session, claim.table, _held(claim), status, reason, **values))


def requeue(session: Session, claim: Claim, reason: Reason, *, crashed: bool) -> Status | None:
    """Give a job or evaluation back that has not ended; tells what became of it, None if the lease was lost.

    Cancelled or paused if that was asked for. Otherwise queued again, unless this was the last of `max_attempts` crashes:
    then failed for `reason`. A process that stopped because it was told to has not crashed.
    """
    for status, keys in _release(session, claim.table, _held(claim), reason, crashed=crashed).items():
        if keys:
            return status
    return None


def request_cancel(session: Session, job_id: str) -> Status:
    """Cancel a job: at once if it does not run, else by asking its worker. Its evaluations are cancelled with it.

    Raises UnknownJobError, JobEndedError if it is in a terminal status, or WrongStatusError if this version does not know its
    status. Asking again while it runs changes nothing.
    """
    waiting = (*_WAITING, Status.PAUSED)
    session.execute(select(Evaluation.id).where(Evaluation.job_id == job_id).with_for_update(key_share=True))
    status = session.scalar(select(Job.status).where(Job.id == job_id).with_for_update(key_share=True))
    if status is None:
        raise UnknownJobError(job_id)
    if status in TERMINAL:
        raise JobEndedError(status)
    if status not in (*waiting, Status.RUNNING):
        raise WrongStatusError(f"only a job that waits or runs can be cancelled; this one is {status}")
    _cancel(session, Job, (Job.id == job_id,), waiting)
    _cancel(session, Evaluation, (Evaluation.job_id == job_id,), waiting)
    return Status.RUNNING if status is Status.RUNNING else Status.CANCELLED


def request_pause(session: Session, job_id: str) -> Status:
    """Pause a job: at once if it waits, else by asking its worker, which has it save and stop. Its evaluations go on.

    Raises UnknownJobError, JobEndedError, or WrongStatusError if it is being cancelled, or in a status that this version does
    not know. Asking again changes nothing.
    """
    job = _locked(session, job_id)
    if job.status in TERMINAL:
        raise JobEndedError(job.status)
    if job.status is Status.PAUSED:
        return Status.PAUSED
    if job.status in _WAITING:
        _move(session, Job, (Job.id == job_id,), Status.PAUSED, PAUSED, phase=None)
        return Status.PAUSED
    if job.status is not Status.RUNNING:
        raise WrongStatusError(f"only a job that waits or runs can be paused; this one is {job.status}")
    if job.cancel_requested:
        raise WrongStatusError("the job is being cancelled, so it cannot be paused")
    if not job.pause_requested:
        session.execute(update(Job).where(Job.id == job_id).values(pause_requested=True, phase=Phase.PAUSING))
        add_event(session, job_id, job.attempt, "pause_requested", "The job was asked to pause.")
    return Status.RUNNING


def request_resume(session: Session, job_id: str) -> Status:
    """Queue a paused job again; it goes on at its last checkpoint, with all its attempts.

    Raises UnknownJobError, JobEndedError, or WrongStatusError if it is neither paused nor ended.
    """
    job = _locked(session, job_id)
    if job.status in TERMINAL:
        raise JobEndedError(job.status)
    if job.status is not Status.PAUSED:
        pausing = " and still pausing" if job.pause_requested else ""
        raise WrongStatusError(f"only a paused job can be resumed; this one is {job.status}{pausing}")
    phase = Phase.RECOVERING if job.attempt else None
    _move(session, Job, (Job.id == job_id,), Status.QUEUED, None, phase=phase, crashes=0, queued_at=func.now())
    hint(session, Job, [job_id])
    return Status.QUEUED


def _locked(session: Session, job_id: str) -> Row[Any]:
    """What decides whether a verb goes with the job; its status stays as it is until this transaction ends."""
    columns: tuple[InstrumentedAttribute[Any], ...] = (Job.status, Job.attempt, Job.cancel_requested, Job.pause_requested)
    job = session.execute(select(*columns).where(Job.id == job_id).with_for_update(key_share=True)).one_or_none()
    if job is None:
        raise UnknownJobError(job_id)
    return job


def _cancel(session: Session, table: Leased, which: Iterable[ColumnElement[bool]], waiting: tuple[Status, ...]) -> None:
    _end(session, table, (*which, table.status.in_(waiting)), Status.CANCELLED, CANCELLED, cancel_requested=True)
    asked = session.execute(
        update(table)
        .where(*which, table.status == Status.RUNNING, ~table.cancel_requested)
        .values(cancel_requested=True, phase=Phase.CANCELLING)
        .returning(*told(table))
        .execution_options(synchronize_session=False)
    )
    for row in asked.all():
        add_event(session, row.job_id, row.attempt, "cancel_requested", f"{row.subject} was asked to stop.")


def note_lacking(session: Session) -> None:
    """Say of each queued job whether it asks for more GPUs than any machine with a worker has."""
    queued = (Job.status == Status.QUEUED, Job.status_reason.is_(None) | (Job.status_reason["code"].astext == slots.LACKING))
    asked = select(Job.device, Job.gpus).where(*queued, or_(Job.device == slots.CUDA, Job.gpus > 1)).distinct()
    for device, gpus in session.execute(asked).all():
        lacks = slots.lacking(session, device, gpus)
        reason = lacks and lacks.as_json(Status.QUEUED)
        alike = (*queued, Job.device == device, Job.gpus == gpus, Job.status_reason.is_distinct_from(reason))
        session.execute(update(Job).where(*alike).values(status_reason=reason).execution_options(synchronize_session=False))


def reap(session: Session, table: Leased) -> dict[Status, list[str]]:
    """Take back what silent workers hold; tells which ids were cancelled, paused, queued again or failed.

    What someone else has locked, be it a worker that froze in mid-transaction, is left to the next look.
    """
    expired = (table.lease_expires_at < func.now(),)
    return _release(session, table, expired, WORKER_LOST, crashed=True, skip_locked=True)


def _release(
    session: Session,
    table: Leased,
    guards: tuple[ColumnElement[bool], ...],
    reason: Reason,
    *,
    crashed: bool,
    skip_locked: bool = False,
) -> dict[Status, list[str]]:
    """Move running rows on whose process is gone. One of four guarded updates takes each, in this order.

    The rows are chosen and locked first: every statement sees what was committed before it, so a row that came to meet the
    guards between two updates would be failed by the last without having been asked for by the others.
    """
    query = select(table.id).where(*guards, table.status == Status.RUNNING).order_by(table.id)
    chosen = session.scalars(query.with_for_update(key_share=True, skip_locked=skip_locked)).all()
    running = (table.id.in_(chosen), table.status == Status.RUNNING)
    crashes = table.crashes + (1 if crashed else 0)
    cancelled = _end(session, table, (*running, table.cancel_requested.is_(True)), Status.CANCELLED, CANCELLED)
    on_request = replace(PAUSED, message=f"{PAUSED.message} {reason.message}") if crashed else PAUSED
    asked = (*running, table.pause_requested.is_(True))
    paused = _move(session, table, asked, Status.PAUSED, on_request, phase=None, crashes=crashes)
    queued = _move(
        session,
        table,
        (*running, crashes < settings().max_attempts),
        Status.QUEUED,
        reason,
        phase=Phase.RECOVERING,
        crashes=crashes,
        queued_at=func.now(),
        not_before=_after_backoff(crashes) if crashed else None,
    )
    hint(session, table, queued)
    failed = _end(session, table, running, Status.FAILED, reason, crashes=crashes)
    return {Status.CANCELLED: cancelled, Status.PAUSED: paused, Status.QUEUED: queued, Status.FAILED: failed}


def _end(
    session: Session, table: Leased, guards: Iterable[ColumnElement[bool]], status: Status, reason: Reason | None, **values: Any
) -> list[str]:
    live = table.status.not_in(TERMINAL)
    return _move(session, table, (*guards, live), status, reason, phase=None, finished_at=func.now(), **values)


def _move(
    session: Session, table: Leased, guards: Iterable[ColumnElement[bool]], status: Status, reason: Reason | None, **values: Any
) -> list[str]:
    """The guarded UPDATE that gives rows a status nobody holds, with the event of each; returns the ids that changed."""
    moved = session.execute(
        update(table)
        .where(*guards)
        .values(
            status=status,
            status_reason=reason and reason.as_json(status),
            pause_requested=False,
            lease_owner=None,
            lease_token=None,
            lease_expires_at=None,
            lease_host=None,
            lease_devices=None,
            **{"not_before": None, **values},
        )
        .returning(*told(table))
        .execution_options(synchronize_session=False)
    ).all()
    for row in moved:
        tell(session, table, row, status, reason)
    return [row.id for row in moved]


def _held(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    table = claim.table
    return (table.id == claim.id, table.lease_token == claim.lease_token, table.status == Status.RUNNING)


def _turn(priority: Any) -> ColumnElement[Any]:
    """Where a new row stands in the queue: as if it had come earlier by `priority_seconds` for each step of priority."""
    return func.now() - func.make_interval(0, 0, 0, 0, 0, 0, settings().priority_seconds * priority)


def _lease_end() -> ColumnElement[Any]:
    return func.now() + timedelta(seconds=settings().lease_seconds)


def _after_backoff(crashes: ColumnElement[int]) -> ColumnElement[Any]:
    seconds = settings().backoff_seconds * func.power(2, func.least(crashes, _MOST_DOUBLINGS))
    return func.now() + func.make_interval(0, 0, 0, 0, 0, 0, seconds)
