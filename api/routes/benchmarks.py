"""Benchmarks by name: those of the service, and those that users register."""

from http import HTTPStatus

from fastapi import APIRouter

from api import benchmarks
from api.body import JsonBody
from api.dependencies import SessionDep
from api.preflight import resolve_rows
from api.schemas import BenchmarkView, Listing
from evaluator.benchmarks import known_benchmarks
from evaluator.config import Benchmark

router = APIRouter(prefix="/v1/benchmarks", tags=["benchmarks"])


@router.get("")
def list_benchmarks(session: SessionDep) -> Listing[BenchmarkView]:
    """The names that `evaluation.benchmarks` of a job spec may hold."""
    known = [BenchmarkView.of(benchmark) for benchmark in known_benchmarks()]
    return Listing(data=[*known, *(BenchmarkView.of(one, registered=True) for one in benchmarks.registered(session))])


@router.post("", status_code=HTTPStatus.CREATED)
def register_benchmark(body: JsonBody, session: SessionDep) -> BenchmarkView:
    """Give rows of your own a name. `path` is a file on the service's machine or the id of an uploaded one.

    The rows are read once and pinned by their hash: a file that changes afterwards is refused when it is to be scored.
    """
    benchmark = Benchmark.parse(body)
    with session.begin():
        resolved = benchmark.model_copy(update={"path": resolve_rows(session, benchmark.path, benchmark.revision, "path")})
        made, _ = benchmarks.register(session, resolved)
    return BenchmarkView.of(made, registered=True)
