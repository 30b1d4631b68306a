"""OpenAI's fine-tuning API on the same records: a script written for it works with another base URL."""

import re
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import Field
from sqlalchemy import ColumnElement, func, insert, select

from api import openai_graders, openai_views, record, record_read
from api.body import JsonBody
from api.dependencies import RelayDep, SessionDep
from api.errors import ApiError, not_found
from api.idempotency import AttemptDep, once
from api.models import Checkpoint, Job, Json, OpenAIJob, Status
from api.openai_spec import FINE_TUNED, FineTune, Wanted, wanted
from api.openai_views import OpenAIListing, job_views
from api.openapi import json_body
from api.preflight import plan
from api.record_read import find_job
from trainer.strict import SpecError, Strict

JOBS = "/v1/fine_tuning/jobs"
GRADERS = "/v1/fine_tuning/alpha/graders"
_METADATA = re.compile(r"metadata\[(.{1,64})\]")
_EXAMPLE_GRADER = {
    "type": "string_check",
    "name": "exact",
    "input": "{{sample.output_text}}",
    "reference": "{{item.answer}}",
    "operation": "eq",
}
_EXAMPLE: Json = {
    "model": "artifacts/base",
    "training_file": "file-aaaaaaaaaaaaaaaaaaaaaaaa",
    "method": {
        "type": "reinforcement",
        "reinforcement": {"grader": _EXAMPLE_GRADER, "hyperparameters": {"batch_size": 16, "n_epochs": 2, "mhpo_c": 1.5}},
    },
}

router = APIRouter(tags=["openai"])


class GraderBody(Strict):
    grader: dict[str, Any]


class RunBody(GraderBody):
    model_sample: str
    item: Annotated[dict[str, Any], Field(default_factory=dict)]


@router.post(JOBS, openapi_extra={"requestBody": json_body(FineTune, _EXAMPLE)})
def create_fine_tuning_job(body: JsonBody, session: SessionDep, relay: RelayDep, attempt: AttemptDep) -> dict[str, Any]:
    """Queue a job of the method reinforcement. Its steps are n_epochs passes over the training file.

    Hyperparameters named `mhpo_...` are fields of the algorithm; `x_spec` is merged into the job spec.
    """
    with session.begin():
        made = wanted(session, body)
    with session.begin():
        job_id = once(session, attempt, JOBS, body, lambda: _create(session, made)).job_id
        view = _view(session, job_id)
    relay.wake()
    return view


@router.get(JOBS)
def list_fine_tuning_jobs(
    session: SessionDep,
    request: Request,
    after: Annotated[str | None, Query(description="The id of the last job of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    metadata: Annotated[str | None, Query(pattern="^null$", description="null: jobs without; else metadata[key]=value")] = None,
) -> OpenAIListing:
    """All jobs, newest first, those of `POST /v1/jobs` too."""
    last = None if after is None else find_job(session, after)
    pairs = {key[1]: value for name, value in request.query_params.items() if (key := _METADATA.fullmatch(name))}
    jobs, has_more = record_read.page(session, Job, last, limit, _with_metadata(pairs, without=metadata is not None))
    return OpenAIListing(data=job_views(session, jobs), has_more=has_more)


@router.get(f"{JOBS}/{{job_id}}")
def get_fine_tuning_job(job_id: str, session: SessionDep) -> dict[str, Any]:
    """One job."""
    return _view(session, job_id)


@router.post(f"{JOBS}/{{job_id}}/cancel")
def cancel_fine_tuning_job(job_id: str, session: SessionDep) -> dict[str, Any]:
    """Stop a job: it is cancelled when its process has ended."""
    with session.begin():
        record.request_cancel(session, job_id)
    return _view(session, job_id)


@router.post(f"{JOBS}/{{job_id}}/pause")
def pause_fine_tuning_job(job_id: str, session: SessionDep) -> dict[str, Any]:
    """Have a job save a checkpoint and stop; it is paused when its process has ended."""
    with session.begin():
        record.request_pause(session, job_id)
    return _view(session, job_id)


@router.post(f"{JOBS}/{{job_id}}/resume")
def resume_fine_tuning_job(job_id: str, session: SessionDep, relay: RelayDep) -> dict[str, Any]:
    """Queue a paused job, which goes on at its last checkpoint."""
    with session.begin():
        record.request_resume(session, job_id)
    relay.wake()
    return _view(session, job_id)


@router.get(f"{JOBS}/{{job_id}}/events")
def list_fine_tuning_events(
    job_id: str, session: SessionDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 20
) -> OpenAIListing:
    """Events, newest first: `message` of what happened, `metrics` of each step."""
    job = find_job(session, job_id)
    try:
        return openai_views.events(session, job, after, limit)
    except LookupError:
        raise not_found("event", after or "") from None


@router.get(f"{JOBS}/{{job_id}}/checkpoints")
def list_fine_tuning_checkpoints(
    job_id: str, session: SessionDep, after: str | None = None, limit: Annotated[int, Query(ge=1, le=1000)] = 10
) -> OpenAIListing:
    """Checkpoints, newest first."""
    job = find_job(session, job_id)
    try:
        return openai_views.checkpoints(session, job, after, limit)
    except LookupError:
        raise not_found("checkpoint", after or "") from None


@router.post(
    "/v1/fine_tuning/alpha/graders/validate", openapi_extra={"requestBody": json_body(GraderBody, {"grader": _EXAMPLE_GRADER})}
)
def validate_grader(body: JsonBody) -> dict[str, Any]:
    """Check a grader; the answer is the grader as it was sent."""
    grader = GraderBody.parse(body).grader
    openai_graders.checked(grader)
    return {"grader": grader}


@router.post(
    f"{GRADERS}/run",
    openapi_extra={
        "requestBody": json_body(RunBody, {"grader": _EXAMPLE_GRADER, "model_sample": "4", "item": {"answer": "4"}})
    },
)
def run_grader(body: JsonBody) -> dict[str, Any]:
    """Grade one sample, in a process of its own."""
    asked = RunBody.parse(body)
    return openai_graders.run(asked.grader, asked.model_sample, asked.item)


@router.get("/v1/models")
def list_models(session: SessionDep) -> OpenAIListing:
    """Models that jobs were given, and those that they made."""
    path = Job.spec["model"]["path"].astext
    bases = session.execute(select(path, func.max(Job.created_at)).group_by(path).order_by(path))
    made = session.scalars(select(Job).where(Job.status == Status.SUCCEEDED).order_by(Job.created_at.desc())).all()
    tuned = [_model(view["fine_tuned_model"], view["finished_at"]) for view in job_views(session, made)]
    return OpenAIListing(data=[*tuned, *(_model(name, int(at.timestamp())) for name, at in bases)], has_more=False)


@router.get("/v1/models/{model:path}")
def get_model(model: str, session: SessionDep) -> dict[str, Any]:
    """One model, by its name."""
    if (found := FINE_TUNED.fullmatch(model)) is not None:
        job = find_job(session, found["job"])
        checkpoint = session.get(Checkpoint, (job.id, job.steps if found["step"] is None else int(found["step"])))
        if checkpoint is not None:
            return _model(model, int(checkpoint.created_at.timestamp()))
    used = session.scalar(select(Job.created_at).where(Job.spec["model"]["path"].astext == model).limit(1))
    if used is None:
        raise ApiError(HTTPStatus.NOT_FOUND, "model_not_found", f"no model has the name {model[:120]!r}", "model")
    return _model(model, int(used.timestamp()))


def _create(session: SessionDep, made: Wanted) -> str:
    try:
        planned = plan(session, made.spec)
    except SpecError as error:
        raise SpecError(_THEIRS.get(error.param or "", error.param), error.message) from error
    job_id = record.create_job(session, *planned.as_json())
    session.execute(insert(OpenAIJob).values(job_id=job_id, request=made.request))
    return job_id


_THEIRS = {"model.path": "model", "dataset.path": "training_file", "evaluation.benchmarks.0": "validation_file"}


def _view(session: SessionDep, job_id: str) -> Json:
    [view] = job_views(session, [find_job(session, job_id)])
    return view


def _with_metadata(pairs: dict[str, str], *, without: bool) -> list[ColumnElement[bool]]:
    if without:
        having = select(OpenAIJob.job_id).where(OpenAIJob.request["metadata"].astext.is_not(None))
        return [Job.id.not_in(having)]
    if not pairs:
        return []
    return [Job.id.in_(select(OpenAIJob.job_id).where(OpenAIJob.request.contains({"metadata": pairs})))]


def _model(name: str, created: int) -> Json:
    return {"id": name, "object": "model", "created": created, "owned_by": "mhpo"}
