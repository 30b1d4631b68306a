"""Long curves in pieces: each metric summed up over segments of 8, 64, 512 and 4096 steps, written once they are complete.

A segment stands on the steps `start` to `start + size - 1`, `start` a multiple of `size`; all of them lie at or below the
job's step. Segments of 8 are made of the steps themselves, larger ones of those of the next smaller size. A reader covers a
range of steps by the largest segments that fit, and takes the rest from the steps (`cover`).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Double,
    FromClause,
    Select,
    Subquery,
    Text,
    case,
    cast,
    delete,
    func,
    insert,
    lateral,
    literal,
    select,
    type_coerce,
)
from sqlalchemy.dialects.postgresql import ARRAY, aggregate_order_by, distinct_on
from sqlalchemy.orm import Session

from api.models import MetricSegment, StepMetrics

FACTOR = 8
SIZES = (8, 64, 512, 4096)
_LARGEST = 1e300  # a hundred million of it have a sum
STEPS = 1  # the size of a piece that is read from the steps themselves


@dataclass(frozen=True, slots=True)
class Piece:
    """Steps `first` to `end - 1`, to be read from segments of `size`: `Piece(8, 16, 40)` is three of them."""

    size: int
    first: int
    end: int


def cover(first: int, end: int, largest: int) -> Iterator[Piece]:
    """Steps `first` to `end - 1` in pieces that join on to each other, of segments of at most `largest`.

    >>> list(cover(5, 26, 8))
    [Piece(size=1, first=5, end=8), Piece(size=8, first=8, end=24), Piece(size=1, first=24, end=26)]
    """
    if first >= end:
        return
    if largest == STEPS:
        yield Piece(STEPS, first, end)
        return
    low, high = -(-first // largest) * largest, end // largest * largest
    if low >= high:
        yield from cover(first, end, largest // FACTOR)
        return
    yield from cover(first, low, largest // FACTOR)
    yield Piece(largest, low, high)
    yield from cover(high, end, largest // FACTOR)


def roll_up(session: Session, job_id: str, changed_from: int, last: int, *, appended: bool) -> None:
    """Make the segments whole after steps from `changed_from` to the job's step, `last`, were written.

    `appended` says that no step from `changed_from` on was part of a segment before.
    """
    if not appended:
        forget(session, job_id, changed_from)
    for size in SIZES:
        first, end = changed_from // size * size, (last + 1) // size * size
        if first < end:
            _write(session, job_id, size, Piece(size // FACTOR, first, end))


def forget(session: Session, job_id: str, changed_from: int) -> None:
    """Remove the segments that have a part at or after step `changed_from`."""
    for size in SIZES:
        mine = (MetricSegment.job_id == job_id, MetricSegment.size == size, MetricSegment.start > changed_from - size)
        session.execute(delete(MetricSegment).where(*mine))


def counted(job_id: str, first: int, end: int) -> Subquery:
    """The rows of steps `first` to `end - 1` that count: of each step the latest attempt's."""
    return (
        select(StepMetrics.step, StepMetrics.metrics, StepMetrics.reported_at)
        .where(StepMetrics.job_id == job_id, StepMetrics.step >= first, StepMetrics.step < end)
        .ext(distinct_on(StepMetrics.step))
        .order_by(StepMetrics.step, StepMetrics.attempt.desc())
        .subquery()
    )


def values(job_id: str, first: int, end: int, names: list[str] | None) -> Subquery:
    """(step, name, value) of steps `first` to `end - 1`; value is NULL where it was not finite. All names where None."""
    row = counted(job_id, first, end)
    if names is None:
        pair = lateral(func.jsonb_each_text(row.c.metrics).table_valued("key", "value"))
        return select(row.c.step, pair.c.key.label("name"), cast(pair.c.value, Double).label("value")).join(
            pair, literal(True)
        ).subquery()  # fmt: skip
    name = func.unnest(type_coerce(names, ARRAY(Text))).table_valued("name")
    value = cast(row.c.metrics[name.c.name].astext, Double).label("value")
    return select(row.c.step, name.c.name, value).join(name, row.c.metrics.has_key(name.c.name)).subquery()


def parts(job_id: str, piece: Piece, names: list[str] | None = None) -> Subquery:
    """What `piece` is made of: (name, step at which it starts, n, not_finite, min, max, sum, last, last_step)."""
    return _of_steps(job_id, piece, names) if piece.size == STEPS else _of_segments(job_id, piece, names)


def summand(value: ColumnElement[float]) -> ColumnElement[float]:
    """A value as it is added up: PostgreSQL refuses a sum that is too large for a double, and a step must be recorded."""
    return case((func.abs(value) > _LARGEST, func.sign(value) * _LARGEST), else_=value)


def summed(part: FromClause, width: int) -> Select[Any]:
    """The same columns of parts put together by every `width` steps; `step` is where such a stretch starts."""
    start = (part.c.step // width * width).label("step")
    newest_first = aggregate_order_by(part.c.last, part.c.step.desc())
    return select(
        part.c.name,
        start,
        func.sum(part.c.n).label("n"),
        func.sum(part.c.not_finite).label("not_finite"),
        func.min(part.c.min).label("min"),
        func.max(part.c.max).label("max"),
        func.sum(part.c.sum).label("sum"),
        func.array_agg(newest_first, type_=ARRAY(Double))[1].label("last"),
        func.max(part.c.last_step).label("last_step"),
    ).group_by(part.c.name, start)


def _write(session: Session, job_id: str, size: int, source: Piece) -> None:
    whole = summed(parts(job_id, source), size).subquery()
    columns = ("name", "n", "not_finite", "min", "max", "sum", "last", "last_step")
    query = select(literal(job_id), literal(size), whole.c.step, *(whole.c[name] for name in columns))
    session.execute(insert(MetricSegment).from_select(["job_id", "size", "start", *columns], query))


def _of_steps(job_id: str, piece: Piece, names: list[str] | None) -> Subquery:
    point = values(job_id, piece.first, piece.end, names).c
    value = point.value
    return select(
        point.name,
        point.step,
        _one_if(value.is_not(None)).label("n"),
        _one_if(value.is_(None)).label("not_finite"),
        value.label("min"),
        value.label("max"),
        summand(value).label("sum"),
        value.label("last"),
        point.step.label("last_step"),
    ).subquery()


def _of_segments(job_id: str, piece: Piece, names: list[str] | None) -> Subquery:
    table = MetricSegment
    within = (table.job_id == job_id, table.size == piece.size, table.start >= piece.first, table.start < piece.end)
    return (
        select(
            table.name,
            table.start.label("step"),
            table.n,
            table.not_finite,
            table.min,
            table.max,
            table.sum,
            table.last,
            table.last_step,
        )
        .where(*within, *([] if names is None else [table.name.in_(names)]))
        .subquery()
    )


def _one_if(condition: ColumnElement[bool]) -> ColumnElement[int]:
    return case((condition, 1), else_=0)
