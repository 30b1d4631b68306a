"""Benchmarks that users register: named rows, pinned by their hash."""

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from api.models import RegisteredBenchmark
from evaluator.benchmarks import known_benchmarks
from evaluator.config import Benchmark
from evaluator.problems import benchmark_rows
from trainer.strict import SpecError


def registered(session: Session) -> list[Benchmark]:
    """By name."""
    entries = session.scalars(select(RegisteredBenchmark.entry).order_by(RegisteredBenchmark.name))
    return [Benchmark.parse(entry) for entry in entries]


def register(session: Session, benchmark: Benchmark) -> tuple[Benchmark, int]:
    """Record a benchmark with the hash of its rows; returns it and their number. Registering the same again changes nothing.

    Raises SpecError for a name that is taken by other rows or another entry, and for rows that cannot be used.
    """
    rows = benchmark_rows(benchmark, "benchmark")
    pinned = benchmark.model_copy(update={"content_hash": rows.content_hash})
    entry = pinned.model_dump(mode="json")
    if benchmark.name in {known.name for known in known_benchmarks()}:
        raise SpecError("name", f"{benchmark.name!r} is a benchmark of the service; choose another name")
    session.execute(upsert(RegisteredBenchmark).values(name=benchmark.name, entry=entry).on_conflict_do_nothing())
    kept = session.scalars(select(RegisteredBenchmark.entry).where(RegisteredBenchmark.name == benchmark.name)).one()
    if kept != entry:
        raise SpecError(
            "name", f"{benchmark.name!r} is registered with other rows or settings; scores of one name are of one set"
        )
    return pinned, len(rows.problems)
