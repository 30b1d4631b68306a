"""Curves of many jobs at once, of few points each: what a list shows of them, read in one statement."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Double, Integer, Text, cast, column, func, select, type_coerce, union_all
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
    piece = _table(pieces)
    part = union_all(_of_segments(piece, names), _of_steps(piece, names)).subquery().c
    last = func.max(part.last_step)
    mean = func.sum(part.sum) / func.nullif(func.sum(part.n), 0)
    query = select(part.job_id, part.name, last, mean).group_by(part.job_id, part.name, part.step // part.width)
    for job_id, name, step, value in session.execute(query.order_by(last)):
        if value is not None:
            found[job_id][name].append((step, value))
    return found


def _pieces(job: Job, limit: int) -> list[_Piece]:
    end = job.step + 1
    width = bucket_steps(0, end, limit)
    return [_Piece(job.id, width, each.size, each.first, each.end) for each in cover(0, end, largest_within(width))]


def _table(pieces: Sequence[_Piece]) -> Any:
    """The pieces as rows of a statement: an array a column, so that it is the same statement however many there are."""
    kinds = [Text, *[Integer] * (len(_Piece._fields) - 1)]
    columns: list[Any] = [column(name, kind) for name, kind in zip(_Piece._fields, kinds, strict=True)]
    values = zip(*pieces, strict=True)
    arrays: list[Any] = [type_coerce(list(each), ARRAY(kind)) for each, kind in zip(values, kinds, strict=True)]
    return func.unnest(*arrays).table_valued(*columns).render_derived(name="piece").c


def _of_segments(piece: Any, names: Sequence[str]) -> Any:
    segment = MetricSegment
    within = (segment.job_id == piece.job_id, segment.size == piece.size, segment.name.in_(names))
    query = select(
        segment.job_id, segment.name, piece.width, segment.start.label("step"), segment.last_step, segment.sum, segment.n
    )
    return query.where(*within, segment.start >= piece.first, segment.start < piece.beyond)


def _of_steps(piece: Any, names: Sequence[str]) -> Any:
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
    name = func.unnest(type_coerce(list(names), ARRAY(Text))).table_valued("name").c.name
    value = cast(row.metrics[name].astext, Double)
    n = func.num_nonnulls(value).label("n")
    columns = (row.job_id, name.label("name"), row.width, row.step, row.step.label("last_step"), summand(value).label("sum"), n)
    return select(*columns).where(row.metrics.has_key(name))
