"""The exact grader."""

from trainer.config import ExactGrader
from trainer.rewards.grader import Grader
from trainer.types import Completion, Problem


def exact_grader(_: ExactGrader) -> Grader:
    """1.0 where the completion is the answer, white space around both removed."""

    def grade(problem: Problem, completion: Completion) -> float:
        return float(completion.text.strip() == problem.answer.strip())

    return grade
