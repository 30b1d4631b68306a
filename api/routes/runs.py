"""What a run has produced so far: curves, events, samples, checkpoints, scores."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from fastapi.responses import StreamingResponse

from api import curves, job_warnings, logs, record_read
from api.body import MAX_INT
from api.brief import Column, brief
from api.checkpoint_files import archive, is_available
from api.curves import Axis
from api.database import see_one_moment
from api.dependencies import SessionDep
from api.errors import ApiError
from api.evaluation_rows import evaluation_rows
from api.job_warnings import WarningView
from api.models import Checkpoint, Level
from api.record_read import CompletionFilter, best_step, find_job
from api.schemas import (
    BucketsView,
    CheckpointView,
    EvaluationRowView,
    EvaluationView,
    EventView,
    Listing,
    LogView,
    MetricsView,
    SampleView,
    WholeCheckpointView,
)

CheckpointStep = Annotated[int, Path(ge=0, le=MAX_INT)]

router = APIRouter(prefix="/v1/jobs/{job_id}", tags=["runs"])


@router.get("/metrics", response_model_exclude_none=True)
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
    columns: Annotated[list[Column] | None, Query(description="Of buckets; all if left out")] = None,
    digits: Annotated[int | None, Query(ge=1, le=17, description="Significant digits of what was measured, of buckets")] = None,
) -> MetricsView | BucketsView:
    """Curves by metric, up to the job's step. Of a step that was run twice the latest attempt counts.

    Every point as `step` and `value`; or, with any of `max_points` (500 if left out), `x`, `from`, `to`, `columns` and
    `digits`, buckets of equally many steps with minimum, maximum, mean and last value, so that no spike is lost.
    """
    find_job(session, job_id)
    wanted = None if names is None else [name for name in names.split(",") if name]
    see_one_moment(session)
    if all(asked is None for asked in (max_points, x, low, high, columns, digits)):
        return curves.points(session, job_id, wanted, from_step)
    return brief(curves.buckets(session, job_id, wanted, x or Axis.STEP, low, high, max_points or 500), columns, digits)


@router.get("/events")
def list_events(
    job_id: str,
    session: SessionDep,
    after: Annotated[int, Query(ge=0, le=MAX_INT, description="The id of the last event of the page before")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    order: Annotated[Literal["asc", "desc"], Query(description="desc: newest first")] = "asc",
    level: Annotated[list[Level] | None, Query(description="Only those of these levels")] = None,
) -> Listing[EventView]:
    """Events, oldest first: changes of status, phases, warnings, checkpoints."""
    find_job(session, job_id)
    events, has_more = record_read.events(session, job_id, after, limit, level, ascending=order == "asc")
    return Listing(data=[EventView.of(event) for event in events], has_more=has_more)


@router.get("/warnings")
def list_warnings(job_id: str, session: SessionDep) -> Listing[WarningView]:
    """What deserves a look: of the metrics as they are now, of a worker that is silent, and what the run said itself."""
    return Listing(data=job_warnings.of_job(session, find_job(session, job_id)))


@router.get("/checkpoints")
def list_checkpoints(job_id: str, session: SessionDep) -> Listing[CheckpointView]:
    """Checkpoints in the order of their steps."""
    find_job(session, job_id)
    found = record_read.checkpoints(session, job_id)
    best = best_step(found)
    return Listing(data=[CheckpointView.of(each, best) for each in found])


@router.get("/checkpoints/{step}")
def get_checkpoint(job_id: str, step: CheckpointStep, session: SessionDep) -> WholeCheckpointView:
    """One checkpoint with its files and their hashes."""
    checkpoint = _find_checkpoint(session, job_id, step)
    best = best_step(record_read.checkpoints(session, job_id))
    view = CheckpointView.of(checkpoint, best).model_dump()
    return WholeCheckpointView.model_validate({**view, "files": checkpoint.contents})


@router.get("/checkpoints/{step}/archive", response_class=StreamingResponse)
def download_checkpoint(
    job_id: str,
    step: CheckpointStep,
    session: SessionDep,
    state: Annotated[bool, Query(description="With what the trainer needs to go on: optimizer, random numbers")] = False,
) -> StreamingResponse:
    """A tar of the model folder. 409 where the folder has been removed to keep only the newest."""
    checkpoint = _find_checkpoint(session, job_id, step)
    session.rollback()
    if not is_available(checkpoint):
        raise ApiError(HTTPStatus.CONFLICT, "checkpoint_removed", f"the checkpoint of step {step} has been removed")
    named = {"content-disposition": f'attachment; filename="{job_id}-step_{step}.tar"'}
    return StreamingResponse(archive(checkpoint, with_state=state), media_type="application/x-tar", headers=named)


@router.get("/logs")
def read_logs(
    job_id: str,
    session: SessionDep,
    component: Annotated[str, Query(description="trainer, or the id of an evaluation")] = logs.TRAINER,
    tail: Annotated[int, Query(ge=1, le=10_000, description="Lines, at most")] = 200,
    search: Annotated[str | None, Query(max_length=200, description="Only lines with this text, in any case")] = None,
    before: Annotated[int | None, Query(ge=0, le=MAX_INT, description="Only lines that begin before this byte")] = None,
) -> LogView:
    """The last lines of a log, oldest first."""
    return logs.read(session, job_id, component, tail, search, before)


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
    min_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    max_reward: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    grader: Annotated[str | None, Query(description="The bounds are of this grader's score")] = None,
    truncated: Annotated[bool | None, Query(description="Cut at max_new_tokens, or not")] = None,
) -> Listing[SampleView]:
    """Prompts of a step with their completions, rewards and advantages.

    With a filter: the completions that it takes, and the prompts that have one. `index` is a completion's place in its group.
    """
    find_job(session, job_id)
    wanted = CompletionFilter(min_reward, max_reward, grader, truncated)
    views = [SampleView.of(each, wanted) for each in record_read.samples(session, job_id, step)]
    return Listing(data=[view for view in views if view.completions or wanted == CompletionFilter()])


def _find_checkpoint(session: SessionDep, job_id: str, step: int) -> Checkpoint:
    checkpoint = record_read.find_checkpoint(session, find_job(session, job_id).id, step)
    if checkpoint is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "not_found", f"job {job_id} has no checkpoint of step {step}")
    return checkpoint
