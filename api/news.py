"""What is new about a job since a position: its status, steps, events and log lines."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self
from zlib import crc32

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api.database import see_one_moment
from api.models import Event, Job, Json, StepMetrics
from api.schemas import EventView, StatusView
from api.settings import settings

PAGE = 200  # rows of each kind that one look takes
_LOG_BYTES = 1 << 16  # of the log that one look takes


class Kind(StrEnum):
    """What a piece of news is about; the name of its server-sent event."""

    STATUS = "status"
    EVENT = "event"
    METRICS = "metrics"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Position:
    """How far a reader is: the last event's id, the last step's place in the record, bytes of the log, the status it knows.

    As text, which is the `id:` of server-sent events: `17.204.9321.1f00c3b2`.
    """

    event: int = 0
    metrics: int = 0
    log: int = 0
    status: int = 0

    def __str__(self) -> str:
        return f"{self.event}.{self.metrics}.{self.log}.{self.status:x}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises ValueError for what no position reads as."""
        event, metrics, log, status = text.split(".")
        made = cls(int(event), int(metrics), int(log), int(status, 16))
        if not all(0 <= value < 2**63 for value in (made.event, made.metrics, made.log, made.status)):
            raise ValueError(text)
        return made

    def knows(self, item: "Item") -> bool:
        """Whether a reader at this position has had `item`."""
        here: int = getattr(self, item.kind)
        return here == item.place if item.kind is Kind.STATUS else here >= item.place

    def after(self, item: "Item") -> "Position":
        return replace(self, **{item.kind: item.place})


@dataclass(frozen=True, slots=True)
class Item:
    """One piece of news; `place` is the position, of its kind, of a reader that has had it."""

    kind: Kind
    place: int
    data: str  # JSON, in ASCII: other line ends than \n would break a server-sent event


def since(session: Session, job_id: str, position: Position) -> tuple[list[Item], bool]:
    """What comes behind `position`, about a page of each kind, and whether there may be more.

    Within a kind it is in order. A step comes before the events that were recorded after it, up to a page.
    """
    see_one_moment(session)
    metrics, events, log = _metrics(session, job_id, position), _events(session, job_id, position), _log(job_id, position)
    whole = len(metrics) < PAGE and len(events) < PAGE and not log
    return [*_status(session, job_id, position), *metrics, *events, *log], not whole


def present(session: Session, job_id: str) -> Position:
    """The position of a reader that has had everything but the status."""
    event = session.scalar(select(func.max(Event.id)).where(Event.job_id == job_id)) or 0
    metrics = session.scalar(select(func.max(StepMetrics.seq)).where(StepMetrics.job_id == job_id)) or 0
    return Position(event, metrics, _whole_lines(job_id))


def log_size(job_id: str) -> int:
    """Bytes of the trainer's log, 0 where there is none yet; asks the file system alone."""
    try:
        return (settings().run_folder(job_id) / "trainer.log").stat().st_size
    except FileNotFoundError:
        return 0


def _status(session: Session, job_id: str, position: Position) -> list[Item]:
    job = session.scalars(select(Job).where(Job.id == job_id).execution_options(populate_existing=True)).one()
    data = _text(StatusView.model_validate(job).model_dump(mode="json"))
    item = Item(Kind.STATUS, crc32(data.encode()), data)
    return [] if position.knows(item) else [item]


def _events(session: Session, job_id: str, position: Position) -> list[Item]:
    query = select(Event).where(Event.job_id == job_id, Event.id > position.event).order_by(Event.id).limit(PAGE)
    return [Item(Kind.EVENT, event.id, _text(EventView.of(event).model_dump(mode="json"))) for event in session.scalars(query)]


def _metrics(session: Session, job_id: str, position: Position) -> list[Item]:
    mine = (StepMetrics.job_id == job_id, StepMetrics.seq > position.metrics)
    rows = session.scalars(select(StepMetrics).where(*mine).order_by(StepMetrics.seq).limit(PAGE))
    return [Item(Kind.METRICS, row.seq, _text(_step(row))) for row in rows]


def _step(row: StepMetrics) -> Json:
    time = row.reported_at.timestamp()
    return {"object": "job.step", "step": row.step, "attempt": row.attempt, "time": time, "metrics": row.metrics}


def _log(job_id: str, position: Position) -> list[Item]:
    """The next whole lines, or a piece of one that is longer than a look takes."""
    file = settings().run_folder(job_id) / "trainer.log"
    if log_size(job_id) <= position.log:
        return []
    with file.open("rb") as log:
        log.seek(position.log)
        found = log.read(_LOG_BYTES)
    whole = found[: found.rfind(b"\n") + 1] or (found if len(found) == _LOG_BYTES else b"")
    text = whole.decode("utf-8", "replace")
    return [Item(Kind.LOG, position.log + len(whole), _text({"component": "trainer", "text": text}))] if whole else []


def _whole_lines(job_id: str) -> int:
    """Bytes of the log up to its last line end, so that a half-written line is told of when whole; all, if that is far."""
    size = log_size(job_id)
    if size == 0:
        return 0
    with (settings().run_folder(job_id) / "trainer.log").open("rb") as log:
        log.seek(start := max(0, size - _LOG_BYTES))
        found = log.read(size - start)
    end = found.rfind(b"\n") + 1
    return start + end if end or start == 0 else size


def _text(document: Json) -> str:
    return json.dumps(document)
