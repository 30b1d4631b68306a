"""Jobs: create, list, read, cancel, pause, resume, retry, clone."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from api import job_warnings, record, record_read
from api.background import Repeated
from api.body import JsonBody
from api.dependencies import RelayDep, SessionDep
from api.idempotency import AttemptDep, Made, once
from api.lineage import Lineage, changes, merge
from api.models import Job, Json, Status
from api.openapi import CLONE_BODY, JOB_BODY
from api.preflight import plan
from api.record_read import find_job
from api.schemas import JobView, ListedJobView, Listing
from trainer.config import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": JOB_BODY})
def create_job(
    body: JsonBody, session: SessionDep, relay: RelayDep, attempt: AttemptDep, request: Request, response: Response
) -> JobView:
    """Queue a job. The spec and what it points to are checked first; a spec with a fault leaves nothing behind.

    The same request sent again with its `Idempotency-Key` within 24 hours gives the same job.
    """
    spec = JobSpec.parse(body)
    with session.begin():
        made = once(session, attempt, router.prefix, body, lambda: record.create_job(session, *plan(session, spec).as_json()))
        job = find_job(session, made.job_id)
    return _created(job, made, relay, request, response)


@router.get("")
def list_jobs(
    session: SessionDep,
    after: Annotated[str | None, Query(description="The id of the last job of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    status: Status | None = None,
) -> Listing[ListedJobView]:
    """Jobs, newest first."""
    last = None if after is None else find_job(session, after)
    jobs, has_more = record_read.page(session, Job, last, limit, record_read.with_status(status))
    warned = job_warnings.counts(session, jobs)
    return Listing(data=[ListedJobView.of(job, warnings=warned[job.id]) for job in jobs], has_more=has_more)


@router.get("/{job_id}")
def get_job(job_id: str, session: SessionDep) -> JobView:
    """One job: status, phase, progress, spec."""
    return JobView.of(find_job(session, job_id))


@router.post("/{job_id}/cancel")
def cancel_job(job_id: str, session: SessionDep) -> JobView:
    """Stop a job: at once where it waits; where it runs it is asked to stop, and is cancelled when its process has ended.

    409 for a job that has ended.
    """
    with session.begin():
        record.request_cancel(session, job_id)
    return JobView.of(find_job(session, job_id))


@router.post("/{job_id}/pause")
def pause_job(job_id: str, session: SessionDep) -> JobView:
    """Pause a job: at once where it waits; where it runs it saves a checkpoint and stops, and its device is free once it is
    paused. Pausing a paused job changes nothing; 409 for a job that has ended or is being cancelled.
    """
    with session.begin():
        record.request_pause(session, job_id)
    return JobView.of(find_job(session, job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: str, session: SessionDep, relay: RelayDep) -> JobView:
    """Queue a paused job, which goes on at its last checkpoint. 409 for a job in any other status."""
    with session.begin():
        record.request_resume(session, job_id)
    relay.wake()
    return JobView.of(find_job(session, job_id))


@router.post("/{job_id}/retry", status_code=HTTPStatus.CREATED)
def retry_job(
    job_id: str, session: SessionDep, relay: RelayDep, attempt: AttemptDep, request: Request, response: Response
) -> JobView:
    """Run a failed or cancelled job again from the beginning, as a new job of the same spec. 409 for any other job."""
    with session.begin():
        parent = find_job(session, job_id)
        if parent.status not in (Status.FAILED, Status.CANCELLED):
            raise record.WrongStatusError(f"only a failed or cancelled job can be retried; this one is {parent.status}")
        made = once(session, attempt, request.url.path, {}, lambda: _make_child(session, parent, {}))
        job = find_job(session, made.job_id)
    return _created(job, made, relay, request, response)


@router.post("/{job_id}/clone", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": CLONE_BODY})
def clone_job(
    job_id: str,
    body: JsonBody,
    session: SessionDep,
    relay: RelayDep,
    attempt: AttemptDep,
    request: Request,
    response: Response,
) -> JobView:
    """Queue a new job: the spec of any job with a JSON merge patch (RFC 7396) on it, checked like a new spec.

    Lists are replaced as a whole; null sets a key back to its default; a part that gets another `type` starts empty.
    """
    with session.begin():
        parent = find_job(session, job_id)
        made = once(session, attempt, request.url.path, body, lambda: _make_child(session, parent, body))
        job = find_job(session, made.job_id)
    return _created(job, made, relay, request, response)


def _make_child(session: Session, parent: Job, patch: Json) -> str:
    before = JobSpec.parse(parent.spec)
    spec = JobSpec.parse(merge(parent.spec, patch))
    diff = changes(before.model_dump(mode="json"), spec.model_dump(mode="json"))
    return record.create_job(session, *plan(session, spec).as_json(), Lineage(parent.id, diff))


def _created(job: Job, made: Made, relay: Repeated, request: Request, response: Response) -> JobView:
    """The answer about a job that is committed."""
    relay.wake()
    response.headers["location"] = request.url_for("get_job", job_id=job.id).path
    if made.before:
        response.headers["idempotency-replayed"] = "true"
    return JobView.of(job)
