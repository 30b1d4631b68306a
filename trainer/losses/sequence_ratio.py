"""Importance ratios of whole sequences. Axes: B sequence, T completion token; [B, 1] where one number stands for a sequence."""

from torch import Tensor


def token_counts(mask_BT: Tensor) -> Tensor:
    """Trained tokens of each sequence [B, 1]; at least 1, which bites only where a sequence has none and no loss either."""
    return mask_BT.sum(dim=1, keepdim=True).clamp(min=1)


def mean_over_tokens(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Mean over each sequence's trained tokens [B, 1]; 0 where there are none."""
    return values_BT.masked_fill(~mask_BT, 0.0).sum(dim=1, keepdim=True) / token_counts(mask_BT)


def sequence_share(like_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """What each token counts in a mean over sequences [B, T]: 1 / tokens of its sequence, detached."""
    return (1 / token_counts(mask_BT).to(like_BT.dtype)).expand_as(like_BT)
