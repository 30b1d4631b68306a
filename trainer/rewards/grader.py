"""The one interface of graders."""

from collections.abc import Callable
from dataclasses import dataclass

from trainer.rewards.http import Post
from trainer.rewards.pool import Call
from trainer.types import Completion, Problem


@dataclass(frozen=True, slots=True)
class Combined:
    """A verdict that is made of others, once they are there; it fails with the first of them that fails."""

    parts: "tuple[Verdict, ...]"
    combine: Callable[..., float]  # of the parts' scores, in order


Verdict = float | Call | Post | Combined

Grader = Callable[[Problem, Completion], Verdict]
"""A pure function: the score of a completion, or, where finding it might hang, what is to be asked for it."""
