"""The ratio control that a spec names."""

from typing import assert_never

from torch import Tensor

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
from trainer.losses.about import About
from trainer.losses.cispo import CISPO, cispo_loss
from trainer.losses.dppo import DPPO, dppo_loss
from trainer.losses.gmpo import GMPO, gmpo_loss
from trainer.losses.grpo import DAPO, DR_GRPO, GRPO, grpo_loss
from trainer.losses.gspo import GSPO, GSPO_TOKEN, LUSPO, gspo_loss, gspo_token_loss
from trainer.losses.mhpo import MHPO, mhpo_loss
from trainer.losses.reinforce import REINFORCE, reinforce_loss
from trainer.losses.sapo import SAPO, sapo_loss
from trainer.losses.token_loss import TokenLoss
from trainer.losses.vespo import VESPO, vespo_loss

ABOUT: dict[type[Algorithm], About] = {
    Mhpo: MHPO,
    Grpo: GRPO,
    Dapo: DAPO,
    DrGrpo: DR_GRPO,
    Gspo: GSPO,
    GspoToken: GSPO_TOKEN,
    Luspo: LUSPO,
    Sapo: SAPO,
    Cispo: CISPO,
    Gmpo: GMPO,
    Dppo: DPPO,
    Vespo: VESPO,
    Reinforce: REINFORCE,
}


def token_loss(
    algorithm: Algorithm,
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_B: Tensor,
    mask_BT: Tensor,
    start_logprobs_BT: Tensor | None = None,
) -> TokenLoss:
    """Per-token losses [B, T] under the job's algorithm. What is masked may be anything, NaN included: it reaches neither
    another token's loss nor any gradient.

    `start_logprobs_BT`: by the weights before the batch's first update, which MHPO's batch region looks at; None: the old ones.
    """
    now_BT = logprobs_BT.masked_fill(~mask_BT, 0.0)
    old_BT = old_logprobs_BT.masked_fill(~mask_BT, 0.0)
    match algorithm:
        case Mhpo():
            start_BT = old_BT if start_logprobs_BT is None else start_logprobs_BT.masked_fill(~mask_BT, 0.0)
            return mhpo_loss(now_BT, old_BT, advantages_B, algorithm, start_BT)
        case Grpo() | Dapo() | DrGrpo():
            return grpo_loss(now_BT, old_BT, advantages_B, algorithm)
        case Gspo() | Luspo():
            return gspo_loss(now_BT, old_BT, advantages_B, mask_BT, algorithm)
        case GspoToken():
            return gspo_token_loss(now_BT, old_BT, advantages_B, mask_BT, algorithm)
        case Sapo():
            return sapo_loss(now_BT, old_BT, advantages_B, algorithm)
        case Cispo():
            return cispo_loss(now_BT, old_BT, advantages_B, algorithm)
        case Gmpo():
            return gmpo_loss(now_BT, old_BT, advantages_B, mask_BT, algorithm)
        case Dppo():
            return dppo_loss(now_BT, old_BT, advantages_B, algorithm)
        case Vespo():
            return vespo_loss(now_BT, old_BT, advantages_B, mask_BT, algorithm)
        case Reinforce():
            return reinforce_loss(now_BT, advantages_B)
        case _:
            assert_never(algorithm)
