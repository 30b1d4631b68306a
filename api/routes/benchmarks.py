"""Benchmarks by name."""

from fastapi import APIRouter

from api.schemas import BenchmarkView, Listing
from evaluator.benchmarks import known_benchmarks

router = APIRouter(prefix="/v1/benchmarks", tags=["benchmarks"])


@router.get("")
def list_benchmarks() -> Listing[BenchmarkView]:
    """The names that `evaluation.benchmarks` of a job spec may hold."""
    return Listing(data=[BenchmarkView.of(benchmark) for benchmark in known_benchmarks()])
