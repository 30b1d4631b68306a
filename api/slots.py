"""The GPUs of each host, leased to jobs one by one.

A job's lease and its slots are taken in one transaction and carry one token, by the database's clock. No code gives slots
back: a trigger frees them with the lease, however that ends. Rows are locked the job first, then free slots by their index.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Row, case, delete, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from api.models import GpuSlot, Job, Task, Worker
from api.queue import QUEUES
from api.reason import Fault, Reason
from api.settings import settings

CPU = "cpu"
CUDA = "cuda"
LACKING = "no_such_machine"  # the code of what a job waits for that no machine has


@dataclass(frozen=True, slots=True)
class Place:
    """Where a worker is, and how many GPUs its host has: `Place("box", 2)` has the slots 0 and 1."""

    host: str
    gpus: int


def offer(session: Session, place: Place) -> None:
    """Have a slot for each of the host's GPUs, and none that is free for one that it has no longer."""
    if place.gpus:
        rows = [{"host": place.host, "index": index} for index in range(place.gpus)]
        session.execute(upsert(GpuSlot).values(rows).on_conflict_do_nothing())
    gone = (GpuSlot.host == place.host, GpuSlot.index >= place.gpus, GpuSlot.lease_token.is_(None))
    session.execute(delete(GpuSlot).where(*gone).execution_options(synchronize_session=False))


def needed(place: Place) -> ColumnElement[int]:
    """How many of the host's GPUs a job would take there; `auto` takes to the CPU where there is none."""
    on_cpu = Job.device == CPU if place.gpus else Job.device != CUDA
    return case((on_cpu, 0), else_=Job.gpus)


def room(session: Session, place: Place, first: ColumnElement[bool]) -> int:
    """How many GPUs the next job may take: those that are free, none where the `first` in the queue waits for more.

    A job that needs several is so not passed over for ever by those that need one; jobs on the CPU pass it.
    """
    free = len(session.scalars(_free(place)).all())
    wanted = session.scalar(select(needed(place)).where(first, needed(place) <= place.gpus).order_by(*turn()).limit(1))
    return 0 if wanted is not None and wanted > free else free


def turn() -> tuple[Any, ...]:
    """The order of the queue: priority and age, then id."""
    return Job.turn_at, Job.id


def lock_free(session: Session, place: Place, count: int) -> list[int] | None:
    """`count` free GPUs of the host, by index, nobody else's until this transaction ends; None if there are not as many."""
    found = list(session.scalars(_free(place).limit(count).with_for_update())) if count else []
    return found if len(found) == count else None


def lease(session: Session, place: Place, indices: Sequence[int], token: UUID) -> None:
    """Give locked slots to the job whose lease has `token`."""
    mine = (GpuSlot.host == place.host, GpuSlot.index.in_(indices))
    leased = update(GpuSlot).where(*mine).values(lease_token=token, leased_at=func.now())
    session.execute(leased.execution_options(synchronize_session=False))


def _free(place: Place) -> Any:
    here = (GpuSlot.host == place.host, GpuSlot.index < place.gpus, GpuSlot.lease_token.is_(None))
    return select(GpuSlot.index).where(*here).order_by(GpuSlot.index)


def slots(session: Session) -> Sequence[Row[Any]]:
    """Every slot, with the job that holds it: (host, index, leased_at, job_id, project, worker, lease_expires_at)."""
    holder = (Job.id.label("job_id"), Job.project, Job.lease_owner.label("worker"), Job.lease_expires_at)
    query = select(GpuSlot.host, GpuSlot.index, GpuSlot.leased_at, *holder)
    held = query.outerjoin(Job, Job.lease_token == GpuSlot.lease_token)
    return list(session.execute(held.order_by(GpuSlot.host, GpuSlot.index)))


def lacking(session: Session, device: str, gpus: int) -> Reason | None:
    """Why no machine with a worker can run a job that asks for `gpus`, as it is now; None where one can."""
    if device == CPU or (device != CUDA and gpus == 1):
        return None
    most = max(session.execute(_hosts()).all(), key=lambda host: int(host.gpus), default=None)
    if most is None and device != CUDA:
        return None
    if most is not None and most.gpus >= gpus:
        return None
    has = "there is none with a GPU" if most is None else f"the largest, {most.host}, has {most.gpus}"
    return Reason(LACKING, Fault.USER, f"It waits for a machine with {_count(gpus)} and a worker; {has}.")


def waits_for(session: Session, device: str, gpus: int) -> str | None:
    """What a job would wait for besides its turn: a machine that can run it, or its GPUs; None where it could start."""
    lacks = lacking(session, device, gpus)
    if lacks is not None:
        return lacks.message
    able = [host for host in session.execute(_hosts()).all() if host.gpus >= gpus and device != CPU]
    if not able or any(host.free >= gpus for host in able):
        return None
    told = ", ".join(f"{host.host} has {host.free} of {host.gpus} free" for host in able)
    return f"It waits for {_count(gpus)} of one machine: {told}."


def _hosts() -> Any:
    """(host, gpus, free) of the hosts whose workers for jobs were seen of late, by name."""
    of_late = Worker.seen_at > func.now() - timedelta(seconds=settings().lease_seconds)
    there = select(Worker.host).where(of_late, Worker.queue.contains(QUEUES[Task.RUN_JOB]))
    free = func.count().filter(GpuSlot.lease_token.is_(None)).label("free")
    query = select(GpuSlot.host, func.count().label("gpus"), free).where(GpuSlot.host.in_(there))
    return query.group_by(GpuSlot.host).order_by(GpuSlot.host)


def _count(gpus: int) -> str:
    return "a GPU" if gpus == 1 else f"{gpus} GPUs"
