"""The gradient multiplier M of each ratio control, dloss/dlog pi = -A M: at r = 1, and how large it can get."""

import math
from typing import assert_never

from trainer.algorithm_config import (
    Algorithm,
    Cispo,
    Dapo,
    Dppo,
    DrGrpo,
    Gmpo,
    Grpo,
    Gspo,
    GspoToken,
    Luspo,
    Mhpo,
    Reinforce,
    Sapo,
    Vespo,
)
from trainer.losses.mhpo import on_policy_survival

SECH_SQUARED_PEAK = 0.44781  # max over u of u sech^2(u) is 0.447808


def on_policy_multiplier(algorithm: Algorithm) -> float:
    """M at r = 1. LUSPO's is times the sequence's number of tokens."""
    if isinstance(algorithm, Mhpo) and not algorithm.normalize_on_policy:
        return on_policy_survival(algorithm)
    return 1.0


def multiplier_bound(algorithm: Algorithm, *, positive: bool) -> float:
    """What M never exceeds for A > 0 (`positive`) or A < 0; infinity where nothing holds it. LUSPO's is times the tokens."""
    match algorithm:
        case Mhpo():
            return math.exp(algorithm.c) * on_policy_multiplier(algorithm) / on_policy_survival(algorithm)
        case Grpo() | Dapo() | DrGrpo():
            ceiling = math.inf if algorithm.dual_clip is None else algorithm.dual_clip
            return 1 + algorithm.epsilon_high if positive else ceiling
        case Gspo() | GspoToken() | Luspo():
            return 1 + algorithm.epsilon_high if positive else math.inf
        case Sapo():
            return 1 + 2 * SECH_SQUARED_PEAK / (algorithm.tau_pos if positive else algorithm.tau_neg)
        case Cispo() | Dppo():
            return algorithm.ratio_max
        case Gmpo():
            return math.exp(algorithm.epsilon_high) if positive else math.inf
        case Vespo():
            k, decay = (algorithm.k_pos, algorithm.lambda_pos) if positive else (algorithm.k_neg, algorithm.lambda_neg)
            return math.exp(decay - k) * math.pow(k / decay, k)
        case Reinforce():
            return 1.0
        case _:
            assert_never(algorithm)
