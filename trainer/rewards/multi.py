"""The multi grader: a formula over named graders."""

from collections.abc import Mapping

from trainer.config import MultiGrader
from trainer.formula import parse_formula
from trainer.rewards.grader import Combined, Grader
from trainer.types import Completion, Problem


def multi_grader(spec: MultiGrader, graders: Mapping[str, Grader]) -> Grader:
    """The formula's value over the scores of `graders`, which are those of the spec."""
    formula = parse_formula(spec.calculate_output)
    needed = {name: grader for name, grader in graders.items() if name in formula.names}

    def combine(*scores: float) -> float:
        return formula.value(dict(zip(needed, scores, strict=True)))

    def grade(problem: Problem, completion: Completion) -> Combined:
        return Combined(tuple(grader(problem, completion) for grader in needed.values()), combine)

    return grade
