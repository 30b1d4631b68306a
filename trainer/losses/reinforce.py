"""REINFORCE (Williams 1992) with the job's advantages: loss = -A log pi_theta. No importance ratio, so nothing to bound."""

import torch
from torch import Tensor

from trainer.losses.about import About
from trainer.losses.token_loss import TokenLoss

REINFORCE = About(
    formula="-A log pi",
    stopped="",
    zero_gradient="nowhere",
    bound="1",
    paper="Williams 1992, doi 10.1007/BF00992696",
    aggregation="token_mean",
    peers="verl's `gpg`; TRL has none",
)


def reinforce_loss(logprobs_BT: Tensor, advantages_B: Tensor) -> TokenLoss:
    """Per-token loss [B, T]; gradient flows through logprobs_BT."""
    return TokenLoss(-advantages_B[:, None] * logprobs_BT, {"multiplier": torch.ones_like(logprobs_BT)})
