"""The length grader."""

from trainer.config import LengthGrader
from trainer.rewards.grader import Grader
from trainer.types import Completion, Problem


def length_grader(spec: LengthGrader) -> Grader:
    """1.0 up to `target` completion tokens, end token included, then falling linearly to 0.0 at `limit`."""

    def grade(_: Problem, completion: Completion) -> float:
        above = len(completion.token_ids) - spec.target
        return min(1.0, max(0.0, 1.0 - above / (spec.limit - spec.target)))

    return grade
