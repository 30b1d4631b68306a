"""Curves out of the record: every point, or buckets in which no spike is lost.

Curves end at the job's step, and of a step the latest attempt counts: what was done after a checkpoint that the job went
back to is out of sight until it is done again.
"""

from collections.abc import Collection, Sequence
from enum import StrEnum
from math import ceil, floor
from typing import Any

from sqlalchemy import ColumnElement, Double, cast, func, select, union_all
from sqlalchemy.dialects.postgresql import aggregate_order_by
from sqlalchemy.orm import Session

from api.models import Job, MetricSegment, StepMetrics
from api.rollup import SIZES, STEPS, Piece, counted, cover, parts, summed, values
from api.schemas import Buckets, BucketsView, MetricsView, Series


class Axis(StrEnum):
    """What a curve is drawn over: the step, seconds since 1970, or completion tokens since the first step."""

    STEP = "step"
    TIME = "time"
    TOKENS = "tokens"


def points(session: Session, job_id: str, wanted: Sequence[str] | None, from_step: int) -> MetricsView:
    """Every point of the curves asked for, or of all, from `from_step` to the job's step."""
    end = _end(session, job_id)
    names = _names(session, job_id, from_step, end)
    asked = names if wanted is None else list(dict.fromkeys(wanted))
    point = values(job_id, from_step, end, asked).c
    in_order = [func.array_agg(aggregate_order_by(column, point.step)) for column in (point.step, point.value)]
    series = {name: Series(step=[], value=[]) for name in asked}
    for name, steps, measured in session.execute(select(point.name, *in_order).group_by(point.name)):
        series[name] = Series(step=steps, value=measured)
    return MetricsView(names=names, series=series)


def buckets(
    session: Session, job_id: str, wanted: Sequence[str] | None, axis: Axis, low: float | None, high: float | None, limit: int
) -> BucketsView:
    """The curves between `low` and `high` of `axis`, each in at most `limit` buckets of equally many steps."""
    first, end = _steps_between(session, job_id, axis, low, high)
    names = _names(session, job_id, first, end)
    asked = names if wanted is None else list(dict.fromkeys(wanted))
    width = bucket_steps(first, end, limit)
    series = _buckets(session, job_id, asked, first, end, width)
    where = _positions(session, job_id, axis, {step for curve in series.values() for step in curve["step"]})
    return BucketsView(
        names=names,
        x=axis.value,
        bucket_steps=width,
        next_step=end,
        series={name: Buckets(x=[where[step] for step in curve["step"]], **curve) for name, curve in series.items()},
    )


def bucket_steps(first: int, end: int, limit: int) -> int:
    """Steps a bucket: whole segments of the largest size that fits, in no more than `limit` buckets."""
    least = max(1, ceil((end - first) / limit))
    size = largest_within(least)
    width = ceil(least / size) * size
    while end > first and (end - 1) // width - first // width + 1 > limit:
        width += size
    return width


def largest_within(width: int) -> int:
    return max((size for size in SIZES if size <= width), default=STEPS)


_COLUMNS = ("last_step", "last", "min", "max", "mean", "n", "not_finite")


def _buckets(session: Session, job_id: str, names: list[str], first: int, end: int, width: int) -> dict[str, dict[str, Any]]:
    """name -> columns of its buckets, in the order of their steps."""
    empty: dict[str, dict[str, Any]] = {name: {"step": [], **{column: [] for column in _COLUMNS[1:]}} for name in names}
    pieces = [select(parts(job_id, piece, names)) for piece in cover(first, end, largest_within(width))]
    if not pieces or not names:
        return empty
    bucket = summed(union_all(*pieces).subquery(), width).subquery()
    of_bucket: dict[str, ColumnElement[Any]] = {**bucket.c, "mean": bucket.c.sum / func.nullif(bucket.c.n, 0)}
    in_order = [func.array_agg(aggregate_order_by(of_bucket[column], bucket.c.step)) for column in _COLUMNS]
    for name, *columns in session.execute(select(bucket.c.name, *in_order).group_by(bucket.c.name)):
        empty[name] = dict(zip(("step", *_COLUMNS[1:]), columns, strict=True))
    return empty


def _names(session: Session, job_id: str, first: int, end: int) -> list[str]:
    """Every metric that steps `first` to `end - 1` have."""
    found = [_names_of(job_id, piece) for piece in cover(first, end, SIZES[-1])]
    if not found:
        return []
    name = union_all(*found).subquery().c.name
    return sorted(session.scalars(select(name).distinct()))


def _names_of(job_id: str, piece: Piece) -> Any:
    if piece.size == STEPS:
        return select(func.jsonb_object_keys(counted(job_id, piece.first, piece.end).c.metrics).label("name"))
    mine = (MetricSegment.job_id == job_id, MetricSegment.size == piece.size)
    return select(MetricSegment.name).where(*mine, MetricSegment.start >= piece.first, MetricSegment.start < piece.end)


def _end(session: Session, job_id: str) -> int:
    return session.scalars(select(Job.step).where(Job.id == job_id)).one() + 1


def _steps_between(session: Session, job_id: str, axis: Axis, low: float | None, high: float | None) -> tuple[int, int]:
    """Steps `first` to `end - 1` are those that lie from `low` to `high` on `axis`, both ends included."""
    end = _end(session, job_id)
    if axis is Axis.STEP:
        first = 0 if low is None else max(0, ceil(min(low, end)))
        return first, end if high is None else max(first, min(end, floor(high) + 1))
    first = 0 if low is None else _first_step(session, job_id, axis, end, low, beyond=False)
    return first, end if high is None else _first_step(session, job_id, axis, end, high, beyond=True)


def _first_step(session: Session, job_id: str, axis: Axis, end: int, value: float, *, beyond: bool) -> int:
    """The first step at `value` of the axis or after it (`beyond`: after it), else `end`; axes rise with the steps."""
    low, high = 0, end
    while low < high:
        middle = (low + high) // 2
        query = select(StepMetrics.step, _on(axis, StepMetrics.reported_at, StepMetrics.metrics))
        within = (StepMetrics.job_id == job_id, StepMetrics.step >= middle, StepMetrics.step < end)
        newest_first = (StepMetrics.step, StepMetrics.attempt.desc())
        here = session.execute(query.where(*within).order_by(*newest_first).limit(1)).one_or_none()
        if here is None or here[1] is None or here[1] > value or (here[1] == value and not beyond):
            high = middle
        else:
            low = here[0] + 1
    return low


def _positions(session: Session, job_id: str, axis: Axis, steps: Collection[int]) -> dict[int, float | None]:
    """step -> where it lies on `axis`."""
    if axis is Axis.STEP:
        return {step: step for step in steps}
    if not steps:
        return {}
    row = counted(job_id, min(steps), max(steps) + 1).c
    query = select(row.step, _on(axis, row.reported_at, row.metrics)).where(row.step.in_(steps))
    return {step: position for step, position in session.execute(query)}  # noqa: C416  # rows, not pairs


def _on(axis: Axis, reported_at: Any, metrics: Any) -> ColumnElement[Any]:
    if axis is Axis.TIME:
        return cast(func.extract("epoch", reported_at), Double)
    return cast(metrics["num_tokens"].astext, Double)
