"""The regex grader. A pattern may backtrack for hours and holds the interpreter's lock meanwhile, so it runs in the pool."""

from trainer.config import RegexGrader
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.types import Completion, Problem


def regex_grader(spec: RegexGrader) -> Grader:
    """1.0 where the pattern is found in the completion (`search`) or is all of it (`fullmatch`)."""

    def grade(_: Problem, completion: Completion) -> Call:
        return Call(f"trainer.rewards.matching:{spec.mode}", (spec.pattern, completion.text), spec.timeout)

    return grade
