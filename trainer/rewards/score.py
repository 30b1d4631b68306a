"""Scores completions with a job's graders. A grader that fails on a sample costs that sample and nothing else."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Self, assert_never

from trainer.config import (
    ExactGrader,
    LengthGrader,
    MathGrader,
    MultiGrader,
    RegexGrader,
    StringCheckGrader,
    grader_names,
)
from trainer.grader_config import (
    ChoiceGrader,
    FormatGrader,
    HttpGrader,
    JsonSchemaGrader,
    PythonGrader,
    TextSimilarityGrader,
)
from trainer.rewards.choice import check_choice, choice_grader, options_of
from trainer.rewards.exact import exact_grader
from trainer.rewards.format import format_grader
from trainer.rewards.grader import Combined, Grader, Verdict
from trainer.rewards.http import Post, ask
from trainer.rewards.http_grader import http_grader
from trainer.rewards.json_schema import SCHEMA_CHECK, json_schema_grader
from trainer.rewards.length import length_grader
from trainer.rewards.math import EQUALITY, check_gold, math_grader
from trainer.rewards.multi import multi_grader
from trainer.rewards.pool import Call, Failure, Outcome, Pool
from trainer.rewards.python_grader import python_grader
from trainer.rewards.regex import regex_grader
from trainer.rewards.string_check import string_check_grader
from trainer.rewards.text_similarity import SIMILARITY, text_similarity_grader
from trainer.stopping import Stopped
from trainer.strict import SpecError
from trainer.types import Completion, Problem, Score

SingleSpec = (
    MathGrader
    | ChoiceGrader
    | ExactGrader
    | StringCheckGrader
    | RegexGrader
    | TextSimilarityGrader
    | FormatGrader
    | LengthGrader
    | JsonSchemaGrader
    | HttpGrader
    | PythonGrader
)
GraderSpec = SingleSpec | MultiGrader


def make_grader(spec: GraderSpec) -> Grader:
    """The grader that a spec describes. Raises SpecError for one that this deployment does not allow."""
    if isinstance(spec, MultiGrader):
        return multi_grader(spec, {name: make_grader(part) for name, part in spec.graders.items()})
    return _make_single(spec)


def _make_single(spec: SingleSpec) -> Grader:
    match spec:
        case MathGrader():
            return math_grader(spec)
        case ChoiceGrader():
            return choice_grader(spec)
        case ExactGrader():
            return exact_grader(spec)
        case StringCheckGrader():
            return string_check_grader(spec)
        case RegexGrader():
            return regex_grader(spec)
        case TextSimilarityGrader():
            return text_similarity_grader(spec)
        case FormatGrader():
            return format_grader(spec)
        case LengthGrader():
            return length_grader(spec)
        case JsonSchemaGrader():
            return json_schema_grader(spec)
        case HttpGrader():
            return http_grader(spec)
        case PythonGrader():
            return python_grader(spec)
        case _:
            assert_never(spec)


def parts_of(specs: Sequence[GraderSpec]) -> list[SingleSpec]:
    """The graders, those inside of multi graders in their place."""
    return [part for spec in specs for part in (spec.graders.values() if isinstance(spec, MultiGrader) else [spec])]


def preloaded(specs: Sequence[SingleSpec]) -> list[str]:
    """The modules that the pool's processes import before any clock runs."""
    needs = {EQUALITY: MathGrader | ChoiceGrader, SIMILARITY: TextSimilarityGrader, SCHEMA_CHECK: JsonSchemaGrader}
    return [module for module, kinds in needs.items() if any(isinstance(spec, kinds) for spec in specs)]


class Scorer:
    """Grades with `specs`; processes start when first needed and end with the context.

    Must be used from one thread, and that thread must live as long as the scorer: the kernel ends the pool's processes with it.
    """

    def __init__(self, specs: Sequence[GraderSpec], make: Callable[[Any], Grader] = make_grader) -> None:
        parts = parts_of(specs)
        self._grades_math = any(isinstance(part, MathGrader) for part in parts)
        self._grades_choices = any(isinstance(part, ChoiceGrader) for part in parts)
        self._graders = dict(zip(grader_names(tuple(specs)), (make(spec) for spec in specs), strict=True))
        self._weights = dict(zip(self._graders, (spec.weight for spec in specs), strict=True))
        self.pool = Pool(preload=preloaded(parts))
        self.sandbox = Pool(sandboxed=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends the pool's processes."""
        self.pool.close()
        self.sandbox.close()

    def check_answers(self, problems: Sequence[Problem], param: str, source: str) -> None:
        """Raises SpecError at `param`, naming the row of `source`, for the first answer that a grader could never match."""
        checks: list[Verdict | Failure] = []
        for problem in problems:
            wrong = check_choice(problem) if self._grades_choices else None
            mathematics = self._grades_math or (self._grades_choices and not options_of(problem.answer, problem.choices))
            checks.append(Failure(wrong) if wrong else check_gold(problem.answer) if mathematics else 1.0)
        for problem, outcome in zip(problems, self._settle(checks), strict=True):
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

    def _settle(self, asked: Sequence[Verdict | Failure]) -> list[Outcome]:
        """Outcomes in the place of what is to be asked for them; equal questions are asked once."""
        leaves = list(dict.fromkeys(leaf for one in asked for leaf in _questions(one)))
        posts = [leaf for leaf in leaves if isinstance(leaf, Post)]
        calls = [leaf for leaf in leaves if isinstance(leaf, Call) and not leaf.sandboxed]
        confined = [leaf for leaf in leaves if isinstance(leaf, Call) and leaf.sandboxed]
        answers: dict[Call | Post, Outcome] = dict(zip(posts, ask(posts) if posts else [], strict=True))
        answers |= zip(calls, self.pool.run(calls), strict=True)
        answers |= zip(confined, self.sandbox.run(confined), strict=True)
        return [_answered(one, answers) for one in asked]

    def _score(self, outcomes: dict[str, Outcome]) -> Score:
        errors = {name: outcome.reason for name, outcome in outcomes.items() if isinstance(outcome, Failure)}
        by_grader = {name: outcome for name, outcome in outcomes.items() if not isinstance(outcome, Failure)}
        reward = 0.0 if errors else sum(self._weights[name] * score for name, score in by_grader.items())
        return Score(reward=reward, by_grader=by_grader, errors=errors)


def _ask(grader: Grader, problem: Problem, completion: Completion) -> Verdict | Failure:
    try:
        verdict = grader(problem, completion)
    except Stopped:  # raised by a signal that came in the meantime
        raise
    except Exception as error:  # noqa: BLE001  # graders meet untrusted model output
        return Failure(f"{type(error).__name__}: {error}")
    return verdict if isinstance(verdict, Call | Post | Combined) else _number(verdict)


def _questions(verdict: Verdict | Failure) -> Iterator[Call | Post]:
    """What has to be asked before the verdict is there."""
    if isinstance(verdict, Call | Post):
        yield verdict
    elif isinstance(verdict, Combined):
        for part in verdict.parts:
            yield from _questions(part)


def _answered(verdict: Verdict | Failure, answers: Mapping[Call | Post, Outcome]) -> Outcome:
    if isinstance(verdict, Call | Post):
        return answers[verdict]
    if not isinstance(verdict, Combined):
        return verdict
    parts = [_answered(part, answers) for part in verdict.parts]
    scores = [part for part in parts if not isinstance(part, Failure)]
    if len(scores) < len(parts):
        return next(part for part in parts if isinstance(part, Failure))
    try:
        return _number(verdict.combine(*scores))
    except (ArithmeticError, ValueError) as error:
        return Failure(f"{type(error).__name__}: {error}")


def _number(answer: object) -> Outcome:
    """A grader says that it returns a number; what it does return is judged as in the pool."""
    if isinstance(answer, int | float) and math.isfinite(answer):
        return answer
    return Failure(f"returned {answer!r}, not a finite number")
