"""Scores completions with a job's graders. A grader that fails on a sample costs that sample and nothing else."""

import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, assert_never

from trainer.config import ExactGrader, LengthGrader, MathGrader, RegexGrader, StringCheckGrader, grader_names
from trainer.rewards.exact import exact_grader
from trainer.rewards.grader import Grader
from trainer.rewards.length import length_grader
from trainer.rewards.math import EQUALITY, check_gold, math_grader
from trainer.rewards.pool import Call, Failure, Outcome, Pool
from trainer.rewards.regex import regex_grader
from trainer.rewards.string_check import string_check_grader
from trainer.stopping import Stopped
from trainer.strict import SpecError
from trainer.types import Completion, Problem, Score

GraderSpec = MathGrader | ExactGrader | StringCheckGrader | RegexGrader | LengthGrader


def make_grader(spec: GraderSpec) -> Grader:
    """The grader that a spec describes."""
    match spec:
        case MathGrader():
            return math_grader(spec)
        case ExactGrader():
            return exact_grader(spec)
        case StringCheckGrader():
            return string_check_grader(spec)
        case RegexGrader():
            return regex_grader(spec)
        case LengthGrader():
            return length_grader(spec)
        case _:
            assert_never(spec)


class Scorer:
    """Grades with `specs`; processes start when first needed and end with the context.

    Must be used from one thread, and that thread must live as long as the scorer: the kernel ends the pool's processes with it.
    """

    def __init__(self, specs: Sequence[GraderSpec], make: Callable[[Any], Grader] = make_grader) -> None:
        self._grades_math = any(isinstance(spec, MathGrader) for spec in specs)
        self._graders = dict(zip(grader_names(tuple(specs)), (make(spec) for spec in specs), strict=True))
        self._weights = dict(zip(self._graders, (spec.weight for spec in specs), strict=True))
        self.pool = Pool(preload=[EQUALITY] if self._grades_math else [])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the pool's processes."""
        self.pool.close()

    def check_answers(self, problems: Sequence[Problem], param: str, source: str) -> None:
        """Raises SpecError at `param`, naming the row of `source`, for the first answer that a grader could never match."""
        if not self._grades_math:
            return
        for problem, outcome in zip(problems, self._settle([check_gold(problem.answer) for problem in problems]), strict=True):
            if isinstance(outcome, Failure):
                raise SpecError(param, f"row {problem.index + 1} of {source}, the answer: {outcome.reason}")

    def score(self, items: Sequence[tuple[Problem, Completion]]) -> list[Score]:
        """A score for each item, in order. Raises PoolError where nothing can be graded.

        A grader that raises, passes its timeout or returns no finite number is in `errors`, and the reward is then 0.0:
        the trainer leaves such a sample out of the loss.
        """
        asked = [_ask(grader, problem, completion) for problem, completion in items for grader in self._graders.values()]
        outcomes = iter(self._settle(asked))
        return [self._score({name: next(outcomes) for name in self._graders}) for _ in items]

    def _settle(self, asked: Sequence[Outcome | Call]) -> list[Outcome]:
        """Outcomes in the place of calls; equal calls are made once."""
        calls = list(dict.fromkeys(one for one in asked if isinstance(one, Call)))
        answers = dict(zip(calls, self.pool.run(calls), strict=True))
        return [answers[one] if isinstance(one, Call) else one for one in asked]

    def _score(self, outcomes: dict[str, Outcome]) -> Score:
        errors = {name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, Failure)}
        by_grader = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, Failure)}
        reward = 0.0 if errors else sum(self._weights[name] * score for name, score in by_grader.items())
        return Score(reward=reward, by_grader=by_grader, errors=errors)


def _ask(grader: Grader, problem: Problem, completion: Completion) -> Outcome | Call:
    try:
        answer = grader(problem, completion)
    except Stopped:  # raised by a signal that came in the meantime
        raise
    except Exception as error:  # noqa: BLE001  # graders meet untrusted model output
        return Failure(f"{type(error).__name__}: {error}")
    return answer if isinstance(answer, Call) or _is_finite(answer) else Failure(f"returned {answer!r}, not a finite number")


def _is_finite(answer: object) -> bool:
    """A grader says that it returns a number; what it does return is judged as in the pool."""
    return isinstance(answer, int | float) and math.isfinite(answer)
