"""GMPO, Geometric-Mean Policy Optimization (arXiv 2507.20673, equation 4).

    d'     = min(d, clip(d, -epsilon_low, epsilon_high)) where A > 0, else max(d, clip(d, -epsilon_low, epsilon_high))
    loss_it = -A exp(mean over the sequence's tokens of d')

One value a sequence, carried by each of its tokens: under the sequence mean of token means, value and gradient are the
paper's. A token clipped in A's direction gets no gradient. For A < 0 the geometric mean has no upper bound.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Gmpo
from trainer.losses.about import About
from trainer.losses.sequence_ratio import mean_over_tokens, sequence_share
from trainer.losses.token_loss import TokenLoss

GMPO = About(
    formula="-A exp(mean_t d'), d' = d clipped to (-epsilon_low, epsilon_high) on A's side",
    stopped="",
    zero_gradient="A > 0: d > epsilon_high. A < 0: d < -epsilon_low",
    bound="A > 0: exp(epsilon_high). A < 0: none",
    paper="arXiv 2507.20673",
    aggregation="sequence_mean_token_mean",
    peers="verl's `geo_mean` takes the plain mean over each micro-batch, so its gradient depends on how a batch is cut, and "
    "has bounds of 0.2; TRL's experimental one has the paper's 0.4. We follow TRL, with the mean over the optimizer step",
)


def gmpo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, config: Gmpo) -> TokenLoss:
    """Per-token GMPO loss [B, T], one value a sequence; gradient flows through the unclipped tokens of logprobs_BT."""
    log_ratio_BT = logprobs_BT - old_logprobs_BT
    advantages_B1 = advantages_B[:, None]
    below_BT = (log_ratio_BT < -config.epsilon_low) & (advantages_B1 < 0)
    above_BT = (log_ratio_BT > config.epsilon_high) & (advantages_B1 > 0)
    narrowed_BT = log_ratio_BT.masked_fill(below_BT, -config.epsilon_low).masked_fill(above_BT, config.epsilon_high)
    ratio_BT = torch.exp(mean_over_tokens(narrowed_BT, mask_BT)).expand_as(log_ratio_BT)
    return TokenLoss(
        loss_BT=-advantages_B1 * ratio_BT,
        telemetry_BT={
            "sequence_share": sequence_share(log_ratio_BT, mask_BT),
            "sequence_ratio": ratio_BT.detach(),
            "clipped_low": below_BT.to(log_ratio_BT.dtype),
            "clipped_high": above_BT.to(log_ratio_BT.dtype),
            "multiplier": torch.where(below_BT | above_BT, 0.0, ratio_BT.detach()),
        },
    )
