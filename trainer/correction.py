"""Importance weights for the difference between the distribution sampled from and the learner's, by the same weights.

w = pi_old(token) / pi_sampler(token): the engine rounds, batches and caches otherwise than the learner does, and cuts at
top_p. Axes: B sequence, T completion token; masks are True where trained on.
"""

from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from trainer.objective_config import Correction, MaskCorrection, NoCorrection, TruncateCorrection


@dataclass(frozen=True, slots=True)
class CorrectionWeights:
    """What a correction does to each token; of the same shape [B, T], detached, meaningless where masked."""

    used_BT: Tensor  # the factor of the token's loss
    bounded_BT: Tensor  # True where the factor is not the weight itself: it was truncated, or masked


def correction_weights(
    old_logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor, correction: Correction
) -> CorrectionWeights:
    """The factor of each token's loss. A token that is weighted 0 still counts in the loss's means.

    The log-ratio is not clamped: an exp that overflows is above every bound.
    """
    log_ratio_BT = (old_logprobs_BT - sampler_logprobs_BT).detach().masked_fill(~mask_BT, 0.0)
    match correction:
        case NoCorrection():
            return CorrectionWeights(torch.ones_like(log_ratio_BT), torch.zeros_like(mask_BT))
        case TruncateCorrection():
            weight_BT = _at_level(log_ratio_BT, correction)
            return CorrectionWeights(weight_BT.clamp(max=correction.at_most), weight_BT > correction.at_most)
        case MaskCorrection():
            weight_BT = _at_level(log_ratio_BT, correction)
            outside_BT = (weight_BT < correction.low) | (weight_BT > correction.high)
            return CorrectionWeights(weight_BT.masked_fill(outside_BT, 0.0), outside_BT)
        case _:
            assert_never(correction)


def _at_level(log_ratio_BT: Tensor, correction: TruncateCorrection | MaskCorrection) -> Tensor:
    """w of the token, or of its sequence: the product over the sequence's tokens."""
    if correction.level == "sequence":
        log_ratio_BT = log_ratio_BT.sum(dim=1, keepdim=True).expand_as(log_ratio_BT)
    return log_ratio_BT.exp()


def effective_sample_size(weights_N: Tensor) -> float:
    """(sum w)^2 / (N sum w^2): 1 where all weights are equal, 1/N where one is everything, 0 where all are 0."""
    squares = weights_N.square().sum()
    return float(weights_N.sum().square() / (len(weights_N) * squares)) if squares > 0 else 0.0
