"""Completions become graded samples: scored, and read for the answer they give."""

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from evaluator.config import Benchmark
from evaluator.journal import Graded
from evaluator.scores import Sample
from trainer.config import MathGrader
from trainer.grader_config import ChoiceGrader
from trainer.rewards.answer import canonical, without_thinking
from trainer.rewards.choice import chosen_text
from trainer.rewards.math import given_answer
from trainer.rewards.score import GraderSpec, Scorer
from trainer.types import Completion, Problem, Score

Item = tuple[int, int, Problem, Completion]
"""Place of the problem in its benchmark, sample, and what is graded."""


class Graders:
    """One scorer, with one pool of processes, for all benchmarks that are graded alike. Used from one thread."""

    def __init__(self) -> None:
        self._scorers: dict[str, Scorer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for scorer in self._scorers.values():
            scorer.close()

    def of(self, grader: GraderSpec) -> Scorer:
        """The scorer of a grader."""
        key = grader.model_dump_json()
        if key not in self._scorers:
            self._scorers[key] = Scorer([grader])
        return self._scorers[key]

    def grade(self, benchmark: Benchmark, items: Sequence[Item]) -> list[Graded]:
        """The items of one benchmark with their verdicts, in order."""
        scores = self.of(benchmark.grader).score([(problem, completion) for _, _, problem, completion in items])
        return [
            Graded(
                benchmark=benchmark.name,
                problem=place,
                sample=sample,
                text=completion.text,
                tokens=len(completion.token_ids),
                finish_reason=completion.finish_reason,
                score=own_score(score),
                error=next(iter(score.errors.values()), None),
                answer=answer_of(benchmark, completion.text),
            )
            for (place, sample, _, completion), score in zip(items, scores, strict=True)
        ]


def own_score(score: Score) -> float:
    """What the benchmark's one grader gave, its weight left out; 0 where it failed."""
    return sum(score.by_grader.values())


def answer_of(benchmark: Benchmark, text: str) -> str | None:
    """What a completion answers, in one spelling: the box for the math grader, the option for choice, the text for others."""
    if isinstance(benchmark.grader, MathGrader):
        given = given_answer(benchmark.grader, text)
        return None if given is None else canonical(given)
    if isinstance(benchmark.grader, ChoiceGrader):
        chosen = chosen_text(text)
        return None if chosen is None else canonical(chosen)
    return without_thinking(text).strip() or None


def as_sample(graded: Graded) -> Sample:
    """As the statistics see it."""
    return Sample(
        score=graded.score,
        tokens=graded.tokens,
        truncated=graded.finish_reason == "length",
        answered=graded.answer is not None,
        failed=graded.error is not None,
        vote=graded.answer,
    )
