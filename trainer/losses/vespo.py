"""VESPO, Variational sEquence-level Soft Policy Optimization (arXiv 2602.10693).

    W    = clip(sum over the sequence's tokens of clip(d, -20, 20), ln 1e-8, 20),   w = e^W
    loss = -sg(phi) A log pi_theta,   phi = w^k exp(lambda (1 - w)); k, lambda by the sign of A, A = 0 with the positive

phi(1) = 1; its maximum, at w = k / lambda, is (k / lambda)^k exp(lambda - k). The inner clip bites where one token has moved
by more than 20 nats, the outer one where the sequence's ratio leaves (1e-8, 5e8); phi is nearly 0 long before.
"""

import math

import torch
from torch import Tensor

from trainer.algorithm_config import Vespo
from trainer.losses.about import About
from trainer.losses.sequence_ratio import sequence_share
from trainer.losses.token_loss import TokenLoss

TOKEN_LOG_RATIO = 20.0
LOG_WEIGHT = (math.log(1e-8), 20.0)

VESPO = About(
    formula="-sg(phi) A log pi, phi = w^k exp(lambda (1 - w)), w = exp(sum_t d)",
    stopped="phi",
    zero_gradient="nowhere; it decays as exp(-lambda w), and as w^k towards 0",
    bound="(k / lambda)^k exp(lambda - k)",
    paper="arXiv 2602.10693",
    aggregation="token_mean",
    peers="TRL's `vespo`; verl has none. TRL adds its correction of the sampler to log w, where one masked token silences the "
    "sequence; here w is the learner's ratio alone",
)


def vespo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, config: Vespo) -> TokenLoss:
    """Per-token VESPO loss [B, T]; gradient flows through log pi, never through phi."""
    advantages_B1 = advantages_B[:, None]
    log_ratio_BT = (logprobs_BT.detach() - old_logprobs_BT).clamp(-TOKEN_LOG_RATIO, TOKEN_LOG_RATIO)
    log_weight_B1 = log_ratio_BT.masked_fill(~mask_BT, 0.0).sum(dim=1, keepdim=True).clamp(*LOG_WEIGHT)
    phi_B1 = torch.where(
        advantages_B1 >= 0,
        _kernel(log_weight_B1, config.k_pos, config.lambda_pos),
        _kernel(log_weight_B1, config.k_neg, config.lambda_neg),
    )
    phi_BT = phi_B1.expand_as(logprobs_BT)
    return TokenLoss(
        loss_BT=-phi_BT * advantages_B1 * logprobs_BT,
        telemetry_BT={"sequence_share": sequence_share(phi_BT, mask_BT), "phi": phi_BT, "multiplier": phi_BT},
    )


def _kernel(log_weight: Tensor, k: float, decay: float) -> Tensor:
    return torch.exp(k * log_weight - decay * torch.expm1(log_weight))
