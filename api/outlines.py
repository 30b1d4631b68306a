"""Curves of many jobs at once, of few points each: what a list shows of them, read in one statement."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import Double, Integer, Select, Text, bindparam, cast, column, func, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY, distinct_on
from sqlalchemy.orm import Session

from api.curves import bucket_steps, largest_within
from api.models import Job, MetricSegment, StepMetrics
from api.rollup import STEPS, cover, summand

Outline = list[tuple[int, float]]  # the last step of each bucket and its mean, in the order of the steps


class _Piece(NamedTuple):
    """A stretch of a job that is read from segments of one size, or from its steps; `width` is that of the job's buckets."""

    job_id: str
    width: int
    size: int
    first: int
    beyond: int


def outlines(session: Session, jobs: Sequence[Job], names: Sequence[str], limit: int) -> Mapping[str, Mapping[str, Outline]]:
    """job id -> metric -> its means up to the job's step, in at most `limit` buckets of equally many steps.

    A bucket in which nothing finite was measured is left out.
    """
    found: dict[str, dict[str, Outline]] = {job.id: defaultdict(list) for job in jobs}
    pieces = [piece for job in jobs if job.step > 0 for piece in _pieces(job, limit)]
    if not pieces:
        return found
    columns = dict(zip(_Piece._fields, map(list, zip(*pieces, strict=True)), strict=True))
    for job_id, name, step, value in session.execute(_statement(), {**columns, "names": list(names)}):
        if value is not None:
            found[job_id][name].append((step, value))
    return found


def _pieces(job: Job, limit: int) -> list[_Piece]:
    end = job.step + 1
    width = bucket_steps(0, end, limit)
    return [_Piece(job.id, width, each.size, each.first, each.end) for each in cover(0, end, largest_within(width))]


@cache
def _statement() -> Select[str, str, int, float | None]:
    """Of the pieces, an array a column: the same statement however many there are. To make it takes longer than to run it."""
    kinds = [Text, *[Integer] * (len(_Piece._fields) - 1)]
    arrays: list[Any] = [bindparam(name, type_=ARRAY(kind)) for name, kind in zip(_Piece._fields, kinds, strict=True)]
    columns: list[Any] = [column(name, kind) for name, kind in zip(_Piece._fields, kinds, strict=True)]
    piece = func.unnest(*arrays).table_valued(*columns).render_derived(name="piece").c
    names = bindparam("names", type_=ARRAY(Text))
    part = union_all(_of_segments(piece, names), _of_steps(piece, names)).subquery().c
    last = func.max(part.last_step)
    mean = func.sum(part.sum) / func.nullif(func.sum(part.n), 0)
    bucket = (part.job_id, part.name, part.step // part.width)
    return select(part.job_id, part.name, last, mean).group_by(*bucket).order_by(last)


def _of_segments(piece: Any, names: Any) -> Any:
    segment = MetricSegment
    within = (segment.job_id == piece.job_id, segment.size == piece.size, segment.name == func.any(names))
    query = select(
        segment.job_id, segment.name, piece.width, segment.start.label("step"), segment.last_step, segment.sum, segment.n
    )
    return query.where(*within, segment.start >= piece.first, segment.start < piece.beyond)


def _of_steps(piece: Any, names: Any) -> Any:
    """Of a step that was done twice the latest attempt counts."""
    within = (StepMetrics.job_id == piece.job_id, StepMetrics.step >= piece.first, StepMetrics.step < piece.beyond)
    row = (
        select(StepMetrics.job_id, StepMetrics.step, StepMetrics.metrics, piece.width)
        .where(piece.size == STEPS, *within)
        .ext(distinct_on(StepMetrics.job_id, StepMetrics.step))
        .order_by(StepMetrics.job_id, StepMetrics.step, StepMetrics.attempt.desc())
        .subquery()
        .c
    )
    name = func.unnest(names).table_valued("name").c.name
    value = cast(row.metrics[name].astext, Double)
    n = func.num_nonnulls(value).label("n")
    columns = (row.job_id, name.label("name"), row.width, row.step, row.step.label("last_step"), summand(value).label("sum"), n)
    return select(*columns).where(row.metrics.has_key(name))
