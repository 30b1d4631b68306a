"""CISPO, clipped importance-sampling weights (MiniMax-M1, arXiv 2506.13585, equations 4 and 5).

    loss = -sg(clip(r, ratio_min, ratio_max)) A log pi_theta

No token loses its gradient. The paper tunes the upper bound only and gives no number; the cap 5 with no floor is ScaleRL's
(arXiv 2510.13786). The bounds are ratios, not distances from 1.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Cispo
from trainer.losses.about import About
from trainer.losses.token_loss import TokenLoss

CISPO = About(
    formula="-sg(clip(r, ratio_min, ratio_max)) A log pi",
    stopped="the weight",
    zero_gradient="nowhere",
    bound="ratio_max",
    paper="arXiv 2506.13585; cap: arXiv 2510.13786",
    aggregation="token_mean",
    peers="TRL: an absolute cap, epsilon_high, which by default is 0.2, so that an on-policy token counts a fifth; no floor. "
    "verl: 1 - 0.2 and 1 + 0.2, both sides. We follow TRL's form with the cap that ScaleRL published, and refuse a cap below 1",
)


def cispo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, config: Cispo) -> TokenLoss:
    """Per-token CISPO loss [B, T]; gradient flows through log pi, never through the weight."""
    ratio_BT = torch.exp(logprobs_BT.detach() - old_logprobs_BT)
    weight_BT = ratio_BT.clamp(config.ratio_min, config.ratio_max)
    above_BT = ratio_BT > config.ratio_max
    return TokenLoss(
        loss_BT=-weight_BT * advantages_B[:, None] * logprobs_BT,
        telemetry_BT={
            "capped": (above_BT & (advantages_B[:, None] > 0)).to(ratio_BT.dtype),
            "capped_low": (ratio_BT < config.ratio_min).to(ratio_BT.dtype),
            "capped_high": above_BT.to(ratio_BT.dtype),
            "multiplier": weight_BT,
        },
    )
