"""The string check grader, as in OpenAI's fine-tuning API; input is the completion and reference the answer by default."""

from collections.abc import Callable

from trainer.config import StringCheckGrader
from trainer.rewards.grader import Grader
from trainer.rewards.template import fill
from trainer.types import Completion, Problem

_OPERATIONS: dict[str, Callable[[str, str], bool]] = {
    "eq": lambda text, answer: text == answer,
    "ne": lambda text, answer: text != answer,
    "like": lambda text, answer: answer in text,
    "ilike": lambda text, answer: answer.casefold() in text.casefold(),
}


def string_check_grader(spec: StringCheckGrader) -> Grader:
    """1.0 where the completion relates to the answer as the operation says; white space counts."""
    holds = _OPERATIONS[spec.operation]

    def grade(problem: Problem, completion: Completion) -> float:
        text = completion.text if spec.input is None else fill(spec.input, problem, completion)
        reference = problem.answer if spec.reference is None else fill(spec.reference, problem, completion)
        return float(holds(text, reference))

    return grade
