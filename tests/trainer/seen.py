"""What an update has left: the gradient, and what was recorded of each sequence."""

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.batch import TrainSequence
from trainer.learner import TokenRecord
from trainer.policy import Policy


def flat_gradient(policy: Policy) -> Tensor:
    return torch.cat([p.grad.flatten() for p in policy.model.parameters() if p.grad is not None])


def recorded_logprobs(record: TokenRecord, sequences: Sequence[TrainSequence]) -> list[Tensor]:
    """Of each sequence, in whichever micro-batch and rank it was; each must be there once."""
    assert len(record.pieces) == len(record.logprobs) == len(record.entropy)
    assert sorted(i for piece in record.pieces for i in piece) == list(range(len(sequences)))
    found: dict[int, Tensor] = {}
    for piece, logprobs in zip(record.pieces, record.logprobs, strict=True):
        rows = torch.split(logprobs, [len(sequences[i].completion_token_ids) for i in piece])
        found |= dict(zip(piece, rows, strict=True))
    return [found[i] for i in range(len(sequences))]
