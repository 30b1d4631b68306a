"""DPPO, Divergence Proximal Policy Optimization, binary approximations (arXiv 2602.04879, section 4).

    loss = -A sg(min(r, ratio_max) K) log pi_theta,   K = 0 where the token has moved too far in A's direction, else 1

    tv: A > 0: p - p_old > delta_high.   A < 0: p - p_old < -delta_low
    kl: D = p_old log(p_old / p) + (1 - p_old) log((1 - p_old) / (1 - p))
        A > 0: D > delta_high and p > p_old.   A < 0: D > delta_low and p < p_old

p = pi_theta and p_old = pi_old of the token: a rare token may grow a hundredfold, a common one may not. The thresholds are
those of the authors' scripts, 0.15 for tv and 0.05 for kl.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Dppo
from trainer.losses.about import About
from trainer.losses.token_loss import TokenLoss

DELTA = {"tv": 0.15, "kl": 0.05}
TINY = 1e-8  # as in verl; it bites where 1 - p is below about 1e-6, and keeps the logarithm finite at p = 1

DPPO = About(
    formula="-A sg(min(r, ratio_max) K) log pi, K in {0, 1}",
    stopped="the weight",
    zero_gradient="tv: p - p_old > delta_high (A > 0), < -delta_low (A < 0). kl: Bernoulli KL > delta, moved in A's direction",
    bound="ratio_max",
    paper="arXiv 2602.04879",
    aggregation="token_mean",
    peers="verl's `dppo_tv` and `dppo_kl`, without its clip of d to ±20. verl takes the thresholds from clip_ratio (0.2) and "
    "the cap from clip_ratio_c (3.0, 20 in its code); here they are 0.15 (tv), 0.05 (kl) and 20, as in the authors' scripts",
)


def dppo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, config: Dppo) -> TokenLoss:
    """Per-token DPPO loss [B, T]; gradient flows through log pi, never through the weight."""
    now_BT = logprobs_BT.detach()
    low, high = (DELTA[config.divergence] if delta is None else delta for delta in (config.delta_low, config.delta_high))
    moved_BT = now_BT.exp() - old_logprobs_BT.exp()
    divergence_BT = moved_BT.abs() if config.divergence == "tv" else bernoulli_kl(old_logprobs_BT, now_BT)
    below_BT = (divergence_BT > low) & (moved_BT < 0) & (advantages_B[:, None] < 0)
    above_BT = (divergence_BT > high) & (moved_BT > 0) & (advantages_B[:, None] > 0)
    ratio_BT = torch.exp(now_BT - old_logprobs_BT)
    weight_BT = ratio_BT.clamp(max=config.ratio_max).masked_fill(below_BT | above_BT, 0.0)
    return TokenLoss(
        loss_BT=-weight_BT * advantages_B[:, None] * logprobs_BT,
        telemetry_BT={
            "clipped_low": below_BT.to(ratio_BT.dtype),
            "clipped_high": above_BT.to(ratio_BT.dtype),
            "capped_high": (ratio_BT > config.ratio_max).to(ratio_BT.dtype),
            "divergence": divergence_BT,
            "multiplier": weight_BT,
        },
    )


def bernoulli_kl(old_logprobs: Tensor, logprobs: Tensor) -> Tensor:
    """KL of (p_old, 1 - p_old) from (p, 1 - p) in nats, from log-probabilities; any shape, not differentiable at 0."""
    old_rest, rest = -torch.expm1(old_logprobs), -torch.expm1(logprobs)
    return old_logprobs.exp() * (old_logprobs - logprobs) + old_rest * torch.log((old_rest + TINY) / (rest + TINY))
