"""The problems of a benchmark."""

from dataclasses import replace

from evaluator.config import Benchmark
from trainer.data import load_problems
from trainer.strict import SpecError
from trainer.types import Problem


def benchmark_problems(benchmark: Benchmark, param: str, limit: int | None) -> list[Problem]:
    """The first `limit` problems, or all. Raises SpecError whose `param` begins with the given one."""
    problems = load_problems(benchmark, param)[:limit]
    if benchmark.answer_after is None:
        return problems
    return [_after(problem, benchmark.answer_after, param) for problem in problems]


def _after(problem: Problem, marker: str, param: str) -> Problem:
    _, found, answer = problem.answer.rpartition(marker)
    if not found or not answer.strip():
        raise SpecError(f"{param}.answer_after", f"the answer of row {problem.index + 1} has nothing after {marker!r}")
    return replace(problem, answer=answer.strip())
