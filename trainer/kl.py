"""Estimates of KL(policy, reference) at sampled tokens (J. Schulman, "Approximating KL divergence", 2020).

With x = log pi - log pi_ref of the sampled token, in nats:

    k1 = x                  unbiased; may be negative; in a loss its gradient is 0 on average
    k2 = x^2 / 2            biased; its gradient x is that of the KL on average
    k3 = exp(-x) - 1 + x    unbiased, never negative; its gradient is 1 - exp(-x)

Differentiated as they stand, and not clamped. verl clips x to +-20 and k3 to +-10; TRL multiplies k3 by the
importance ratio and differentiates through that too, also on-policy.
"""

from typing import assert_never

import torch
from torch import Tensor

from trainer.objective_config import KlEstimator, KlInReward


def kl_estimate(estimator: KlEstimator, logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """The estimate at each token; of any shape, differentiable in `logprobs`."""
    x = logprobs - ref_logprobs
    match estimator:
        case "k1":
            return x
        case "k2":
            return x.square() / 2
        case "k3":
            return torch.expm1(-x) + x
        case _:
            assert_never(estimator)


def reward_penalty(kl: KlInReward, sampler_logprobs_T: Tensor, ref_logprobs_T: Tensor) -> float:
    """What is subtracted from a completion's reward: coefficient x the estimate summed over its tokens."""
    return kl.coefficient * float(kl_estimate(kl.estimator, sampler_logprobs_T, ref_logprobs_T).sum())
