"""Rollouts as tensors.

Axes: B sequence, N packed token (all prompts and completions in one row), T completion token, M trained token.

Sequences lie one after another with no padding between them; attention keeps them apart (trainer/attention.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import pairwise
from math import ceil

import torch
from torch import Tensor

from trainer.types import RolloutGroup


@dataclass(frozen=True, slots=True)
class TrainSequence:
    """One completion after its prompt, ready to train on."""

    prompt_token_ids: tuple[int, ...]
    completion_token_ids: tuple[int, ...]
    sampler_logprobs: tuple[float, ...]
    advantage: float
    old_logprobs: tuple[float, ...] | None = None  # by the weights that sampled; only with rollout.staleness

    @property
    def length(self) -> int:
        """Tokens of prompt and completion."""
        return len(self.prompt_token_ids) + len(self.completion_token_ids)


@dataclass(frozen=True, slots=True)
class Batch:
    """Sequences of one forward pass.

    Two sequences, prompts of 2 and 1 tokens, completions of 1 and 3:

        token_ids_N   [5, 6, 7, 8, 1, 2, 3]
        positions_N   [0, 1, 2, 0, 1, 2, 3]                  position within the sequence
        lengths       [3, 4]
        trained_M     [1, 3, 4, 5]                           where in N the next token is a completion token
        targets_M     [7, 1, 2, 3]                           that token; M runs through mask_BT row by row
        mask_BT       [[True, False, False], [True, True, True]]
    """

    token_ids_N: Tensor
    positions_N: Tensor
    lengths: list[int]
    trained_M: Tensor
    targets_M: Tensor
    mask_BT: Tensor
    sampler_logprobs_BT: Tensor  # 0 where masked
    advantages_B: Tensor

    @property
    def tokens(self) -> int:
        """Trained tokens."""
        return len(self.targets_M)


def trainable(groups: Sequence[RolloutGroup]) -> list[TrainSequence]:
    """The completions of the groups, in order; those whose grading failed are left out."""
    return [
        TrainSequence(
            group.prompt_token_ids, completion.token_ids, completion.sampler_logprobs, advantage, completion.old_logprobs
        )
        for group in groups
        for completion, score, advantage in zip(group.completions, group.scores, group.advantages, strict=True)
        if not score.errors
    ]


def collate(sequences: Sequence[TrainSequence], device: torch.device) -> Batch:
    """One packed batch, the sequences in their order."""
    prompts_B = torch.tensor([len(s.prompt_token_ids) for s in sequences])
    completions_B = torch.tensor([len(s.completion_token_ids) for s in sequences])
    lengths_B = prompts_B + completions_B
    starts_B = lengths_B.cumsum(0) - lengths_B
    token_ids = torch.tensor([token for s in sequences for token in (*s.prompt_token_ids, *s.completion_token_ids)])
    starts_N, first_N, end_N = (of_B.repeat_interleave(lengths_B) for of_B in (starts_B, prompts_B - 1, lengths_B - 1))
    positions_N = torch.arange(len(token_ids)) - starts_N
    trained_M = ((positions_N >= first_N) & (positions_N < end_N)).nonzero().squeeze(-1)
    mask_BT = torch.arange(int(completions_B.max())) < completions_B[:, None]
    sampler_logprobs_BT = torch.zeros(mask_BT.shape, dtype=torch.float32)
    sampler_logprobs_BT[mask_BT] = torch.tensor([value for s in sequences for value in s.sampler_logprobs], dtype=torch.float32)
    return Batch(
        token_ids_N=token_ids.to(device),
        positions_N=positions_N.to(device),
        lengths=lengths_B.tolist(),
        trained_M=trained_M.to(device),
        targets_M=token_ids[trained_M + 1].to(device),
        mask_BT=mask_BT.to(device),
        sampler_logprobs_BT=sampler_logprobs_BT.to(device),
        advantages_B=torch.tensor([s.advantage for s in sequences], dtype=torch.float32).to(device),
    )


def cut(sequences: Sequence[TrainSequence], budget: int, multiple: int = 1) -> list[list[int]]:
    """Indices of micro-batches of at most `budget` tokens each, as even as can be; a longer sequence goes alone.

    As few as fit, but a multiple of `multiple` where there are as many sequences: the longest sequence first, each into the
    micro-batch that is emptiest.
    """
    by_length = sorted(range(len(sequences)), key=lambda i: -sequences[i].length)
    count = multiple * max(1, ceil(sum(s.length for s in sequences) / (budget * multiple)))
    while True:
        pieces = _spread(sequences, by_length, count)
        if all(len(piece) == 1 or sum(sequences[i].length for i in piece) <= budget for piece in pieces):
            return pieces
        count += multiple


def _spread(sequences: Sequence[TrainSequence], order: Sequence[int], count: int) -> list[list[int]]:
    pieces: list[list[int]] = [[] for _ in range(min(count, len(sequences)))]
    emptiest = [(0, number) for number in range(len(pieces))]
    for index in order:
        tokens, number = heappop(emptiest)
        pieces[number].append(index)
        heappush(emptiest, (tokens + sequences[index].length, number))
    return pieces


def updates(groups: Sequence[RolloutGroup], count: int) -> list[Sequence[RolloutGroup]]:
    """The groups cut into `count` consecutive parts, whose sizes differ by at most one."""
    bounds = [round(i * len(groups) / count) for i in range(count + 1)]
    return [groups[start:end] for start, end in pairwise(bounds)]
