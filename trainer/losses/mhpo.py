"""MHPO, Modulated Hazard-aware Policy Optimization (arXiv 2603.16929), section 3.

With the importance ratio r = exp(d), d = log pi_theta - log pi_old of a token and its advantage A:

    psi  = c tanh(d / c)                                        Log-Fidelity Modulator
    zeta = (s(psi) / lambda_pos)^k_pos + (s(-psi) / lambda_neg)^k_neg    Decoupled Hazard Penalty, s = softplus
    loss = -A exp(psi - stop_gradient(zeta))

The gradient multiplier exp(psi - zeta) sech^2(d / c) is bounded by e^c (Theorem 1). zeta(r = 1) is not 0: at the
paper's defaults an on-policy token's gradient is scaled by exp(-zeta(1)) = 0.265.

Two options beyond the paper, both off by default:

    normalize_on_policy   the weight is divided by exp(-zeta(1)), and so is the bound
    zero_region           no gradient where r > 1 + epsilon_high and A > 0, or r < 1 - epsilon_low and A < 0; the value stays.
                          With zero_region_since = batch, of the ratio to the weights before the batch's first update:
                          the lag of stale rollouts does not count, as the proximal policy of arXiv 2110.00641 has it
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import softplus

from trainer.algorithm_config import Mhpo
from trainer.losses.about import About
from trainer.losses.clip import past_clip
from trainer.losses.token_loss import TokenLoss

EPSILON = 0.2  # of the zero region where the spec names none: GRPO's

MHPO = About(
    formula="-A exp(psi - sg(zeta)), psi = c tanh(d / c), "
    "zeta = (softplus(psi) / lambda_pos)^k_pos + (softplus(-psi) / lambda_neg)^k_neg",
    stopped="zeta",
    zero_gradient="nowhere; with zero_region, A > 0: r > 1 + epsilon_high, A < 0: r < 1 - epsilon_low (r from the batch's "
    "first update on with zero_region_since = batch)",
    bound="exp(c); divided by exp(-zeta(1)) with normalize_on_policy",
    paper="arXiv 2603.16929",
    aggregation="sequence_mean_token_mean",
    peers="Neither has it; checked against 50-digit arithmetic. At r = 1 its gradient is 0.265 of the others' at the defaults: "
    "divide learning rates accordingly, or set normalize_on_policy",
)


@dataclass(frozen=True, slots=True)
class Modulation:
    """The parts of MHPO at given log-ratios, each of the log-ratios' shape."""

    psi: Tensor  # differentiable
    zeta_pos: Tensor  # hazard of positive shifts, detached
    zeta_neg: Tensor  # hazard of negative shifts, detached
    weight: Tensor  # exp(psi - zeta), differentiable through psi alone
    multiplier: Tensor  # d weight / d log-ratio, detached


def modulate(log_ratio: Tensor, config: Mhpo) -> Modulation:
    """psi, zeta, the weight and its derivative; any shape, any float type."""
    psi = config.c * torch.tanh(log_ratio / config.c)
    zeta_pos = (softplus(psi.detach()) / config.lambda_pos) ** config.k_pos
    zeta_neg = (softplus(-psi.detach()) / config.lambda_neg) ** config.k_neg
    weight = torch.exp(psi - zeta_pos - zeta_neg)
    sech = 1 / torch.cosh(log_ratio.detach() / config.c)  # 1 - tanh^2 would cancel where |d| is large
    return Modulation(psi, zeta_pos, zeta_neg, weight, weight.detach() * sech**2)


def on_policy_survival(config: Mhpo) -> float:
    """exp(-zeta(r = 1)): the paper's gradient multiplier of an on-policy token."""
    return float(modulate(torch.zeros((), dtype=torch.float64), config).multiplier)


def mhpo_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, config: Mhpo, start_logprobs_BT: Tensor
) -> TokenLoss:
    """Per-token MHPO loss [B, T]; gradient flows through logprobs_BT, never through zeta.

    `start_logprobs_BT`: by the weights before the batch's first update.
    """
    log_ratio_BT = logprobs_BT - old_logprobs_BT
    parts = modulate(log_ratio_BT, config)
    scale = 1 / on_policy_survival(config) if config.normalize_on_policy else 1.0
    weight_BT, multiplier_BT = parts.weight * scale, parts.multiplier * scale
    telemetry = {
        "psi": parts.psi.detach(),
        "zeta_pos": parts.zeta_pos,
        "zeta_neg": parts.zeta_neg,
        "survival": torch.exp(-parts.zeta_pos - parts.zeta_neg),
        "weight": weight_BT.detach(),
    }
    if config.zero_region:
        since_BT = start_logprobs_BT if config.zero_region_since == "batch" else old_logprobs_BT
        moved_BT = (logprobs_BT.detach() - since_BT).exp()
        below_BT, above_BT = past_clip(moved_BT, advantages_B[:, None], *region(config))
        weight_BT = torch.where(below_BT | above_BT, weight_BT.detach(), weight_BT)
        multiplier_BT = multiplier_BT.masked_fill(below_BT | above_BT, 0.0)
        telemetry |= {"clipped_low": below_BT.to(weight_BT.dtype), "clipped_high": above_BT.to(weight_BT.dtype)}
    return TokenLoss(-advantages_B[:, None] * weight_BT, telemetry | {"multiplier": multiplier_BT})


def region(config: Mhpo) -> tuple[float, float]:
    """The ratios between which `zero_region` leaves the gradient alone."""
    low = EPSILON if config.epsilon_low is None else config.epsilon_low
    high = EPSILON if config.epsilon_high is None else config.epsilon_high
    return 1 - low, 1 + high
