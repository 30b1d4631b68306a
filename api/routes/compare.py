"""Runs side by side: of any jobs, and of comparisons that make their jobs."""

from enum import StrEnum
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from api import comparisons
from api.body import JsonBody
from api.compare import compare_jobs
from api.comparisons import ComparisonSpec
from api.dependencies import RelayDep, SessionDep
from api.errors import ApiError
from api.models import Json
from api.report_figure import png
from api.schemas import ComparisonJobView, ComparisonView, Listing
from evaluator.report import markdown

router = APIRouter(prefix="/v1", tags=["compare"])

MOST_JOBS = 20


class Format(StrEnum):
    JSON = "json"
    MARKDOWN = "markdown"
    PNG = "png"


AsFormat = Annotated[Format, Query(alias="format", description="png: gain by benchmark, gradient norm, reward")]
_FORMS: dict[int | str, dict[str, Any]] = {200: {"content": {"application/json": {}, "text/markdown": {}, "image/png": {}}}}


@router.get("/compare", responses=_FORMS)
def compare(
    jobs: Annotated[str, Query(description="Job ids with commas between; the others are compared with the first")],
    session: SessionDep,
    form: AsFormat = Format.JSON,
) -> Response:
    """Benchmarks x jobs: the latest scored checkpoint of each, intervals, and the paired difference to the first job."""
    ids = list(dict.fromkeys(job for job in jobs.split(",") if job))
    if not 1 <= len(ids) <= MOST_JOBS:
        raise ApiError(HTTPStatus.BAD_REQUEST, "invalid_value", f"1 to {MOST_JOBS} job ids are needed; got {len(ids)}", "jobs")
    return _answer(compare_jobs(session, ids), form)


@router.post("/comparisons", status_code=HTTPStatus.CREATED)
def create_comparison(
    body: JsonBody, session: SessionDep, relay: RelayDep, request: Request, response: Response
) -> ComparisonView:
    """Queue a job for each algorithm and seed. All specs are checked first; with a fault in one, none is made."""
    spec = ComparisonSpec.parse(body)
    with session.begin():
        comparison_id = comparisons.create(session, spec)
    relay.wake()
    response.headers["location"] = request.url_for("get_comparison", comparison_id=comparison_id).path
    return get_comparison(comparison_id, session)


@router.get("/comparisons")
def list_comparisons(session: SessionDep, limit: Annotated[int, Query(ge=1, le=100)] = 20) -> Listing[ComparisonView]:
    """Comparisons, newest first."""
    return Listing(data=[get_comparison(each.id, session) for each in comparisons.newest(session, limit)])


@router.get("/comparisons/{comparison_id}")
def get_comparison(comparison_id: str, session: SessionDep) -> ComparisonView:
    """A comparison with its jobs."""
    found = comparisons.find(session, comparison_id)
    jobs = [
        ComparisonJobView(
            job_id=job.id, label=member.label, seed=member.seed, status=job.status, step=job.step, steps=job.steps
        )
        for member, job in comparisons.jobs_of(session, found.id)
    ]
    return ComparisonView(id=found.id, name=found.name, spec=found.spec, created_at=found.created_at, jobs=jobs)


@router.get("/comparisons/{comparison_id}/report", responses=_FORMS)
def report_comparison(comparison_id: str, session: SessionDep, form: AsFormat = Format.JSON) -> Response:
    """The report as it stands: algorithms side by side, each the mean over those of its seeds that are scored."""
    return _answer(comparisons.current_report(session, comparisons.find(session, comparison_id).id), form)


def _answer(report: Json, form: Format) -> Response:
    match form:
        case Format.JSON:
            return JSONResponse(report)
        case Format.MARKDOWN:
            return Response(markdown(report), media_type="text/markdown; charset=utf-8")
        case Format.PNG:
            return Response(png(report), media_type="image/png")
