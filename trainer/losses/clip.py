"""The clipped surrogate that GRPO, GSPO and their kin share, of a ratio of any kind. Shapes broadcast."""

import torch
from torch import Tensor


def past_clip(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """Where an update has already gone past a bound in the advantage's direction: below `low`, above `high`."""
    return (ratio < low) & (advantages < 0), (ratio > high) & (advantages > 0)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> Tensor:
    """min(ratio A, clip(ratio, low, high) A); to be maximised."""
    return torch.minimum(ratio * advantages, ratio.clamp(low, high) * advantages)
