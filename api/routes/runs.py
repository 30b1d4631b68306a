"""What a run has produced so far: curves, events, samples, checkpoints, scores."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import curves, record_read
from api.body import MAX_INT
from api.curves import Axis
from api.database import see_one_moment
from api.dependencies import SessionDep
from api.record_read import find_job
from api.schemas import BucketsView, CheckpointView, EvaluationView, EventView, Listing, MetricsView, SampleView

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["runs"])


@router.get("/metrics")
def get_metrics(
    job_id: str,
    session: SessionDep,
    names: Annotated[str | None, Query(description="Metric names with commas between; all if left out")] = None,
    from_step: Annotated[int, Query(ge=0, le=MAX_INT, description="Of the form with every point")] = 0,
    max_points: Annotated[int | None, Query(ge=1, le=10_000, description="Buckets a curve, at most")] = None,
    x: Annotated[
        Axis | None, Query(description="Axis of `from`, `to` and the answer's `x`: time is seconds since 1970")
    ] = None,
    low: Annotated[float | None, Query(alias="from", allow_inf_nan=False, description="On the axis, included")] = None,
    high: Annotated[float | None, Query(alias="to", allow_inf_nan=False, description="On the axis, included")] = None,
) -> MetricsView | BucketsView:
    """Curves by metric, up to the job's step. Of a step that was run twice the latest attempt counts.

    Every point as `step` and `value`; or, with any of `max_points` (500 if left out), `x`, `from` and `to`, buckets of equally
    many steps with minimum, maximum, mean and last value, so that no spike is lost.
    """
    find_job(session, job_id)
    wanted = None if names is None else [name for name in names.split(",") if name]
    see_one_moment(session)
    if all(asked is None for asked in (max_points, x, low, high)):
        return curves.points(session, job_id, wanted, from_step)
    return curves.buckets(session, job_id, wanted, x or Axis.STEP, low, high, max_points or 500)


@router.get("/events")
def list_events(
    job_id: str,
    session: SessionDep,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="The id of the last event of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> Listing[EventView]:
    """Events, oldest first: changes of status, phases, warnings, checkpoints."""
    find_job(session, job_id)
    events, has_more = record_read.events(session, job_id, after, limit)
    return Listing(data=[EventView.of(event) for event in events], has_more=has_more)


@router.get("/checkpoints")
def list_checkpoints(job_id: str, session: SessionDep) -> Listing[CheckpointView]:
    """Checkpoints in the order of their steps."""
    find_job(session, job_id)
    return Listing(data=[CheckpointView.of(each) for each in record_read.checkpoints(session, job_id)])


@router.get("/evaluations")
def list_evaluations(job_id: str, session: SessionDep) -> Listing[EvaluationView]:
    """Evaluations, the base model's first, then in the order of their checkpoints."""
    find_job(session, job_id)
    return Listing(data=[EvaluationView.of(each) for each in record_read.evaluations(session, job_id)])


@router.get("/samples")
def list_samples(
    job_id: str,
    session: SessionDep,
    step: Annotated[int | None, Query(ge=0, le=MAX_INT, description="The latest if left out")] = None,
) -> Listing[SampleView]:
    """Prompts of a step with their completions, rewards and advantages."""
    find_job(session, job_id)
    return Listing(data=[SampleView.of(each) for each in record_read.samples(session, job_id, step)])
