"""Real golds and hostile answers: ../shared/reference/grader_cases.jsonl and ../shared/benchmarks."""

import json
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from trainer.config import MathGrader
from trainer.rewards.math import EQUALITY, check_gold, compare, plain_gold
from trainer.rewards.pool import Call, Failure, Pool
from trainer.rewards.score import Scorer
from trainer.types import Completion, Problem

SHARED = Path(__file__).parents[2].parent / "shared"
CASES = SHARED / "reference" / "grader_cases.jsonl"
BENCHMARKS = sorted((SHARED / "benchmarks").glob("*.jsonl"))

# Verdicts of people that the grader does not give.
KNOWN_WRONG = {
    "markdown answer": "only a box is an answer",
    "GSM8K format": "only a box is an answer",
    "choice without box": "only a box is an answer",
    "300 nested square roots": "longer than an answer may be; math-verify does not read it either",
    "5000-term sum": "longer than an answer may be; math-verify does not read it either",
}
# Endless arithmetic that someone with a right answer has no need to write: an error, so never a reward.
TIMES_OUT = {
    "factorial of 10^8-1",
    "power tower LaTeX",
    "floor of huge",
    "large base and exponent",
    "tiny power",
    "10^(10^10)",
    "product of 10^7 terms",
    "huge symbolic power",
    "iterated factorial",
}
# They end in a time that depends on the machine: either outcome refuses the answer.
MAY_TIME_OUT = {"factorial of 10^6", "high-power trig", "gcd of big powers", "large multinomial vs x"}

needs_cases = pytest.mark.skipif(not CASES.exists(), reason=f"needs {CASES}")


def rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line.strip()]


def items(cases: list[dict[str, Any]]) -> list[tuple[Problem, Completion]]:
    return [
        (Problem(str(i), i, "?", case["gold"]), Completion((1,), case["prediction"], (0.0,), "stop"))
        for i, case in enumerate(cases)
    ]


@needs_cases
def test_ordinary_cases_get_the_verdict_that_people_agree_on() -> None:
    cases = [case for case in rows(CASES) if case["note"] not in TIMES_OUT | MAY_TIME_OUT]
    assert len(cases) > 85
    with Scorer([MathGrader(timeout=20.0)]) as scorer:
        scores = scorer.score(items(cases))
    assert not [score.errors for score in scores if score.errors]
    wrong = {case["note"] for case, score in zip(cases, scores, strict=True) if score.reward != float(case["expected"])}
    assert wrong == set(KNOWN_WRONG)


@needs_cases
@pytest.mark.slow
def test_hostile_cases_are_refused_within_their_limit_and_the_pool_goes_on() -> None:
    cases = [case for case in rows(CASES) if case["note"] in TIMES_OUT | MAY_TIME_OUT]
    assert not any(case["expected"] for case in cases)
    with Scorer([MathGrader(timeout=2.0)]) as scorer:
        start = monotonic()
        scores = scorer.score(items(cases))
        assert monotonic() - start < 3.0 * len(cases)
        assert scorer.score(items([{"gold": "\\frac12", "prediction": "\\boxed{0.5}"}]))[0].reward == 1.0
    assert all(score.reward == 0.0 for score in scores)
    timed_out = {case["note"] for case, score in zip(cases, scores, strict=True) if score.errors == {"math": "timeout"}}
    assert timed_out >= TIMES_OUT


@needs_cases
def test_cases_without_a_box_are_right_where_the_grader_may_take_what_is_stated() -> None:
    notes = {note for note, reason in KNOWN_WRONG.items() if reason == "only a box is an answer"}
    cases = [case for case in rows(CASES) if case["note"] in notes]
    with Scorer([MathGrader(unboxed=True)]) as scorer:
        assert [score.reward for score in scorer.score(items(cases))] == [1.0] * len(cases)


def check_golds(golds: list[str]) -> None:
    """Each is readable, and equals itself both for the grader and for math-verify behind it."""
    assert not [gold for gold in golds if compare(gold, f"${gold}$", 5.0) != 1.0]
    checks = [check for check in map(check_gold, golds) if isinstance(check, Call)]
    hard = [gold for gold in golds if isinstance(check_gold(gold), Call)]
    with Pool(preload=[EQUALITY]) as pool:
        assert not [outcome for outcome in pool.run(checks) if isinstance(outcome, Failure)]
        equal = pool.run([Call(f"{EQUALITY}:equal", (plain_gold(gold), plain_gold(gold)), 20.0) for gold in hard])
    assert not [(gold, outcome) for gold, outcome in zip(hard, equal, strict=True) if outcome != 1.0]


@pytest.mark.benchmark_data
@pytest.mark.skipif(not BENCHMARKS, reason=f"needs {SHARED / 'benchmarks'}")
def test_some_golds_of_every_benchmark_equal_themselves() -> None:
    check_golds([row["answer"] for file in BENCHMARKS for row in rows(file)[::25]])


@pytest.mark.slow
@pytest.mark.benchmark_data
@pytest.mark.skipif(not BENCHMARKS, reason=f"needs {SHARED / 'benchmarks'}")
@pytest.mark.parametrize("file", BENCHMARKS, ids=lambda file: str(file.stem))
def test_all_golds_of_a_benchmark_equal_themselves(file: Path) -> None:
    check_golds([row["answer"] for row in rows(file)])
