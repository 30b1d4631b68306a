"""GRPO's clipped surrogate (arXiv 2402.03300, equation 3, without its KL term), and DAPO's and Dr. GRPO's, which are the same.

    loss = -min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A),   r = exp(log pi_theta - log pi_old)

DAPO (arXiv 2503.14476, equation 8) raises epsilon_high. Dr. GRPO (arXiv 2503.20783) changes aggregation and advantage only.
With `dual_clip` c (arXiv 1912.09729) the loss of a token with A < 0 is at most -c A. c lies above 1 + epsilon_high; there
verl's max(., c A) and TRL's min(r, delta) are one rule.

No gradient where r has left the bounds in the direction that A asks for. The log-ratio is not clamped, as in TRL: for A < 0
without dual clip the loss grows as r does.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Dapo, DrGrpo, Grpo
from trainer.losses.about import About
from trainer.losses.clip import clipped_surrogate, past_clip
from trainer.losses.token_loss import TokenLoss

GRPO = About(
    formula="-min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)",
    stopped="",
    zero_gradient="A > 0: r > 1 + epsilon_high. A < 0: r < 1 - epsilon_low, and r > dual_clip where it is set",
    bound="A > 0: 1 + epsilon_high. A < 0: dual_clip; none without it",
    paper="arXiv 2402.03300",
    aggregation="sequence_mean_token_mean",
    peers="verl clips d to ±20 and always dual-clips at 3; TRL does neither unless `delta` is set. We follow TRL, as the paper "
    "has neither: `dual_clip` is off. It must lie above 1 + epsilon_high, where verl's rule and TRL's are the same",
)
DAPO = About(
    formula="as grpo, epsilon_high larger",
    stopped="",
    zero_gradient=GRPO.zero_gradient,
    bound=GRPO.bound,
    paper="arXiv 2503.14476",
    aggregation="token_mean",
    peers="TRL's `dapo` is an aggregation and leaves epsilon_high at 0.2 unless told; verl dual-clips. "
    "We take the paper's 0.28 and no dual clip",
)
DR_GRPO = About(
    formula="as grpo",
    stopped="",
    zero_gradient=GRPO.zero_gradient,
    bound=GRPO.bound,
    paper="arXiv 2503.20783",
    aggregation="sequence_sum; advantages without division by the standard deviation",
    peers="TRL's `dr_grpo` is an aggregation and keeps dividing advantages by the standard deviation unless told. Here the "
    "algorithm is the ratio control alone; aggregation and advantages are set where they belong",
)


def grpo_loss(logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, config: Grpo | Dapo | DrGrpo) -> TokenLoss:
    """Per-token loss [B, T]; gradient flows through logprobs_BT."""
    ratio_BT = torch.exp(logprobs_BT - old_logprobs_BT)
    advantages_BT = advantages_B[:, None].expand_as(ratio_BT)
    low, high = 1 - config.epsilon_low, 1 + config.epsilon_high
    surrogate_BT = clipped_surrogate(ratio_BT, advantages_BT, low, high)
    below_BT, above_BT = past_clip(ratio_BT, advantages_BT, low, high)
    stopped_BT = below_BT | above_BT
    telemetry = {"clipped_low": below_BT.to(ratio_BT.dtype), "clipped_high": above_BT.to(ratio_BT.dtype)}
    if config.dual_clip is not None:
        dual_BT = (ratio_BT > config.dual_clip) & (advantages_BT < 0)
        surrogate_BT = torch.where(dual_BT, config.dual_clip * advantages_BT, surrogate_BT)
        stopped_BT |= dual_BT
        telemetry["clipped_dual"] = dual_BT.to(ratio_BT.dtype)
    return TokenLoss(-surrogate_BT, telemetry | {"multiplier": torch.where(stopped_BT, 0.0, ratio_BT.detach())})
