"""What a run has produced so far: curves, events, samples, checkpoints, scores."""

from typing import Annotated

from fastapi import APIRouter, Query

from api import record_read
from api.body import MAX_INT
from api.dependencies import SessionDep
from api.evaluation_rows import evaluation_rows
from api.record_read import best_step, find_job
from api.schemas import CheckpointView, EvaluationRowView, EvaluationView, EventView, Listing, MetricsView, SampleView

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["runs"])


@router.get("/metrics")
def get_metrics(
    job_id: str,
    session: SessionDep,
    names: Annotated[str | None, Query(description="Metric names with commas between; all if left out")] = None,
    from_step: Annotated[int, Query(ge=0, le=MAX_INT)] = 0,
) -> MetricsView:
    """Curves by metric, up to the job's step. Of a step that was run twice the latest attempt counts."""
    find_job(session, job_id)
    wanted = None if names is None else [name for name in names.split(",") if name]
    found, series = record_read.metrics(session, job_id, wanted, from_step)
    return MetricsView(names=found, series=series)


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
    found = record_read.checkpoints(session, job_id)
    best = best_step(found)
    return Listing(data=[CheckpointView.of(each, best) for each in found])


@router.get("/evaluations")
def list_evaluations(job_id: str, session: SessionDep) -> Listing[EvaluationView]:
    """Evaluations, the base model's first, then in the order of their checkpoints."""
    find_job(session, job_id)
    return Listing(data=[EvaluationView.of(each) for each in record_read.evaluations(session, job_id)])


@router.get("/evaluations/{evaluation_id}/rows/{benchmark}")
def list_rows(
    job_id: str,
    evaluation_id: str,
    benchmark: str,
    session: SessionDep,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="Problems to pass over")] = 0,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Listing[EvaluationRowView]:
    """What a model answered on a benchmark: each problem with every sample and its verdict."""
    find_job(session, job_id)
    rows, has_more = evaluation_rows(record_read.evaluations(session, job_id), evaluation_id, benchmark, after, limit)
    return Listing(data=rows, has_more=has_more)


@router.get("/samples")
def list_samples(
    job_id: str,
    session: SessionDep,
    step: Annotated[int | None, Query(ge=0, le=MAX_INT, description="The latest if left out")] = None,
) -> Listing[SampleView]:
    """Prompts of a step with their completions, rewards and advantages."""
    find_job(session, job_id)
    return Listing(data=[SampleView.of(each) for each in record_read.samples(session, job_id, step)])
