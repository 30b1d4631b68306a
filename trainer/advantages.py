"""What each completion's reward is compared with, and what is left out of the loss. Torch-free."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev
from typing import assert_never

from trainer.objective_config import Advantages, KeepZeroVariance, MaskOverlong, Overlong
from trainer.types import RolloutGroup

STD_FLOOR = 1e-4  # as in TRL; it bites where rewards differ by less than about 1e-3


@dataclass(frozen=True, slots=True)
class GroupRewards:
    """The rewards that one group's advantages are taken of: the graders', less what is subtracted from them."""

    rewards: Sequence[float]
    valid: Sequence[bool]  # False where grading failed: such a completion counts nowhere and its advantage is 0

    @property
    def counted(self) -> list[float]:
        """The valid ones."""
        return [reward for reward, ok in zip(self.rewards, self.valid, strict=True) if ok]


def batch_advantages(groups: Sequence[GroupRewards], settings: Advantages) -> list[tuple[float, ...]]:
    """The advantages of all groups of a step.

    A group with fewer than two valid completions, and one whose rewards are all equal, has nothing to say: all 0.
    """
    scale = batch_scale(groups) if settings.type == "batch_std" else 1.0
    return [group_advantages(group, settings, scale) for group in groups]


def batch_scale(groups: Sequence[GroupRewards]) -> float:
    """Standard deviation (n - 1) of all valid rewards of the step, plus the floor; as TRL's scale_rewards="batch"."""
    counted = [reward for group in groups for reward in group.counted]
    return (stdev(counted) if len(counted) > 1 else 0.0) + STD_FLOOR


def group_advantages(group: GroupRewards, settings: Advantages, scale: float = 1.0) -> tuple[float, ...]:
    """One group's advantages; `scale` is that of the whole step, for batch_std."""
    counted = group.counted
    if len(counted) < 2 or min(counted) == max(counted):
        return (0.0,) * len(group.rewards)
    match settings.type:
        case "group_std":
            scale = stdev(counted) + STD_FLOOR
        case "leave_one_out":  # reward - mean of the others = (reward - mean) n / (n - 1)
            scale = (len(counted) - 1) / len(counted)
        case "group_mean" | "batch_std":
            pass
        case _:
            assert_never(settings.type)
    mean = fmean(counted)
    return tuple((reward - mean) / scale if ok else 0.0 for reward, ok in zip(group.rewards, group.valid, strict=True))


def has_signal(group: RolloutGroup) -> bool:
    """True where the graders' rewards differ between completions. What is subtracted for length or KL does not count."""
    rewards = {score.reward for score in group.scores if not score.errors}
    return len(rewards) > 1


def trained(groups: Sequence[RolloutGroup], advantages: Advantages, overlong: Overlong) -> list[RolloutGroup]:
    """The groups that go into the loss, without what the spec leaves out of it: groups of zero variance, cut completions.

    What is left out counts in none of the loss's denominators. Its rewards have had their part in the advantages.
    """
    kept = [g for g in groups if isinstance(advantages.zero_variance, KeepZeroVariance) or has_signal(g)]
    if not isinstance(overlong, MaskOverlong):
        return kept
    return [left for group in kept if (left := without_cut(group)).completions]


def without_cut(group: RolloutGroup) -> RolloutGroup:
    """The group without the completions that were cut at the limit; perhaps empty."""
    rows = zip(group.completions, group.scores, group.advantages, strict=True)
    left = [row for row in rows if row[0].finish_reason != "length"]
    return replace(
        group,
        completions=tuple(completion for completion, _, _ in left),
        scores=tuple(score for _, score, _ in left),
        advantages=tuple(advantage for _, _, advantage in left),
    )
