"""The sequence-ratio family: GSPO, GSPO-token (arXiv 2507.18071), LUSPO (arXiv 2602.05261).

    s_i   = exp(mean over the sequence's tokens of log pi_theta - log pi_old)                         equation 7
    GSPO:       loss_it = -min(s_i A, clip(s_i, 1 - epsilon_low, 1 + epsilon_high) A)                 equation 5
    GSPO-token: the same of s_it = sg(s_i) pi_theta / sg(pi_theta)                                    equation 14
    LUSPO:      GSPO's times the sequence's number of tokens n_i

GSPO's loss is the same for each token of a sequence, so that the sequence's mean over tokens is the loss of the paper, and
its gradient -A s_i / n_i a token. GSPO-token has the same value; its gradient is the same wherever the tokens of a sequence
weigh the same, and differs where they do not (a correction or a mask of single tokens). LUSPO carries its length in itself:
only under the sequence mean of token means is it the paper's. The log-ratio is not clamped, as in TRL.
"""

import torch
from torch import Tensor

from trainer.algorithm_config import Gspo, GspoToken, Luspo
from trainer.losses.about import About
from trainer.losses.clip import clipped_surrogate, past_clip
from trainer.losses.sequence_ratio import mean_over_tokens, sequence_share, token_counts
from trainer.losses.token_loss import TokenLoss

GSPO = About(
    formula="-min(s A, clip(s, 1 - epsilon_low, 1 + epsilon_high) A), s = exp(mean_t d)",
    stopped="",
    zero_gradient="all tokens of a sequence with A > 0: s > 1 + epsilon_high, or A < 0: s < 1 - epsilon_low",
    bound="A > 0: 1 + epsilon_high. A < 0: none",
    paper="arXiv 2507.18071",
    aggregation="sequence_mean_token_mean",
    peers="TRL differentiates the mean, as the paper's equation 5; verl's `gspo` is gspo_token here, with the log of s cut at "
    "10. We follow TRL and the paper. TRL's own epsilon is 0.2 unless set; 3e-4 and 4e-4 are the paper's",
)
GSPO_TOKEN = About(
    formula="as gspo with s_t = sg(s) pi / sg(pi)",
    stopped="the sequence ratio s",
    zero_gradient=GSPO.zero_gradient,
    bound=GSPO.bound,
    paper="arXiv 2507.18071, section 4.3",
    aggregation="sequence_mean_token_mean",
    peers="verl's `gspo` (without its cut of log s at 10), TRL's experimental one. It equals gspo while all tokens of a "
    "sequence weigh the same; a token-level correction weighs each token's own gradient here, the shared value in gspo",
)
LUSPO = About(
    formula="n x gspo, n the tokens of the sequence",
    stopped="",
    zero_gradient=GSPO.zero_gradient,
    bound="n times gspo's",
    paper="arXiv 2602.05261",
    aggregation="sequence_mean_token_mean; the length is in the loss, a sum over tokens would count it twice",
    peers="TRL's `luspo`, whose sum over tokens is the factor n. verl has none. Bounds are the paper's; TRL's default is 0.2",
)


def gspo_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, config: Gspo | Luspo
) -> TokenLoss:
    """Per-token GSPO or LUSPO loss [B, T], one value a sequence; gradient flows through the mean of logprobs_BT."""
    ratio_B1 = torch.exp(mean_over_tokens(logprobs_BT - old_logprobs_BT, mask_BT))
    if isinstance(config, Luspo):
        return _clipped(ratio_B1.expand_as(logprobs_BT), advantages_B, mask_BT, config, token_counts(mask_BT))
    return _clipped(ratio_B1.expand_as(logprobs_BT), advantages_B, mask_BT, config, torch.ones_like(ratio_B1))


def gspo_token_loss(
    logprobs_BT: Tensor, old_logprobs_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, config: GspoToken
) -> TokenLoss:
    """Per-token GSPO-token loss [B, T]; gradient flows through each token's own log-probability."""
    mean_B1 = mean_over_tokens(logprobs_BT - old_logprobs_BT, mask_BT).detach()
    ratio_BT = torch.exp(logprobs_BT - logprobs_BT.detach() + mean_B1)
    return _clipped(ratio_BT, advantages_B, mask_BT, config, torch.ones_like(mean_B1))


def _clipped(
    ratio_BT: Tensor, advantages_B: Tensor, mask_BT: Tensor, config: Gspo | GspoToken | Luspo, scale_B1: Tensor
) -> TokenLoss:
    advantages_B1 = advantages_B[:, None]
    low, high = 1 - config.epsilon_low, 1 + config.epsilon_high
    below_BT, above_BT = past_clip(ratio_BT, advantages_B1, low, high)
    return TokenLoss(
        loss_BT=-scale_B1 * clipped_surrogate(ratio_BT, advantages_B1, low, high),
        telemetry_BT={
            "sequence_share": sequence_share(ratio_BT, mask_BT),
            "sequence_ratio": ratio_BT.detach(),
            "clipped_low": below_BT.to(ratio_BT.dtype),
            "clipped_high": above_BT.to(ratio_BT.dtype),
            "multiplier": torch.where(below_BT | above_BT, 0.0, scale_B1 * ratio_BT.detach()),
        },
    )
