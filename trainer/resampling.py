"""DAPO's dynamic sampling (arXiv 2503.14476, section 3.2), with a bound. Torch-free."""

from collections.abc import Callable, Sequence

from trainer.advantages import has_signal
from trainer.objective_config import ResampleZeroVariance
from trainer.types import RolloutGroup

Draw = Callable[[int, int], list[RolloutGroup]]  # (how many were drawn in this step before, how many are wanted)


def resample(first: Sequence[RolloutGroup], settings: ResampleZeroVariance, draw: Draw) -> list[RolloutGroup]:
    """`first`, and behind it what was drawn until as many groups as `first` holds have a signal, or the bound is reached.

    Each round draws as many as are missing, so none with a signal is in excess. The result depends on nothing but what
    `draw` gives; its length is the number of problems drawn.
    """
    groups, wanted = list(first), len(first)
    while missing := wanted - sum(map(has_signal, groups)):
        left = settings.max_extra_prompts - (len(groups) - wanted)
        if left <= 0:
            break
        groups += draw(len(groups), min(missing, left))
    return groups
