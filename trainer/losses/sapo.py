"""SAPO, Soft Adaptive Policy Optimization (arXiv 2511.20347, equations 5 and 6).

    loss = -(4 / tau) sigmoid(tau (r - 1)) A,   tau = tau_pos where A > 0, else tau_neg

The gradient multiplier is r sech^2(tau (r - 1) / 2): 1 at r = 1, and at most 1 + 0.8956 / tau, as
r sech^2(u) = sech^2(u) + (2 / tau) u sech^2(u) at u = tau (r - 1) / 2, and u sech^2(u) is at most 0.4478.
A = 0 has no gradient; its gate is logged with tau_neg. The log-ratio is not clamped, as in TRL.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Sapo
from trainer.losses.about import About
from trainer.losses.token_loss import TokenLoss

SAPO = About(
    formula="-(4 / tau) sigmoid(tau (r - 1)) A",
    stopped="",
    zero_gradient="nowhere; it decays as exp(-tau r)",
    bound="1 + 0.8956 / tau",
    paper="arXiv 2511.20347",
    aggregation="sequence_mean_token_mean",
    peers="The same loss in both. verl aggregates it by sequence mean of token means whatever its setting and clips d to ±20; "
    "here, as in TRL, the aggregation is the one that is set. The gate of A = 0 is logged with tau_neg, as in both",
)


def sapo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, config: Sapo) -> TokenLoss:
    """Per-token SAPO loss [B, T]; gradient flows through logprobs_BT."""
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    advantages_B1 = advantages_B[:, None]
    tau_B1 = torch.full_like(advantages_B1, config.tau_neg).masked_fill(advantages_B1 > 0, config.tau_pos)
    gate_BT = torch.sigmoid(tau_B1 * (ratio_BT - 1))
    slope_BT = (4 * gate_BT * (1 - gate_BT)).detach()
    return TokenLoss(
        loss_BT=-advantages_B1 * 4 / tau_B1 * gate_BT,
        telemetry_BT={"gate": slope_BT, "multiplier": slope_BT * ratio_BT.detach()},
    )
