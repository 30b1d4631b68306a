"""How per-token losses become one number. Axes: B sequence, T completion token; masks are True where trained on.

A loss is the sum of its tokens' losses times the weights made here. The weights are divided by counts of the whole
optimizer step, so that the parts of its micro-batches add up to the same number however it is cut.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from trainer.batch import TrainSequence
from trainer.objective_config import Loss


@dataclass(frozen=True, slots=True)
class StepCounts:
    """What is trained on in one optimizer step."""

    sequences: int
    tokens: int

    @classmethod
    def of(cls, sequences: Sequence[TrainSequence]) -> "StepCounts":
        """Of all sequences of the step."""
        return cls(len(sequences), sum(len(s.completion_token_ids) for s in sequences))


def token_weights(mask_BT: Tensor, loss: Loss, counts: StepCounts, *, sum_constant: int, dtype: torch.dtype) -> Tensor:
    """The weight [B, T] of each token's loss; 0 where masked. Two sequences of 1 and 3 tokens, `sum_constant` 4:

    sequence_mean_token_mean  [1/2, 0, 0], [1/6, 1/6, 1/6]
    token_mean                [1/4, 0, 0], [1/4, 1/4, 1/4]
    sequence_sum              [1/8, 0, 0], [1/8, 1/8, 1/8]
    """
    weights_BT = mask_BT.to(dtype)
    match loss.aggregation:
        case "sequence_mean_token_mean":
            # The clamp bites only on a sequence without trained tokens, whose weights are all 0.
            return weights_BT / (weights_BT.sum(dim=1, keepdim=True).clamp(min=1) * counts.sequences)
        case "token_mean":
            return weights_BT / counts.tokens
        case "sequence_sum":
            return weights_BT / (counts.sequences * sum_constant)
        case _:
            assert_never(loss.aggregation)
