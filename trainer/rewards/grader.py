"""The one interface of graders."""

from collections.abc import Callable

from trainer.rewards.pool import Call
from trainer.types import Completion, Problem

Grader = Callable[[Problem, Completion], float | Call]
"""A pure function: the score of a completion, or, where finding it might hang, the call to the pool that finds it."""
