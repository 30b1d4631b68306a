"""Packed sequences that begin alike, each token computed once.

What a causal model makes of a token depends on it and on those before it alone: the completions of a prompt have its rows in
common, and those that begin alike have more. In the order of their tokens each sequence leaves the one before it at some token
and is a branch from there on. Axes: N packed token of all sequences, U row that is computed, C branch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from math import ceil

import numpy
import torch
from torch import Tensor

ROWS = 768  # of a chunk, about
ALONE = 256  # rows that are not worth a second thread
CUT = 0.1  # of a chunk's rows


@dataclass(frozen=True, slots=True)
class Chunk:
    """Branches that go through the layers together."""

    rows: slice  # of U
    starts: numpy.ndarray  # [C + 1] the row, counted from the chunk's first, with which each branch begins; the last one's end
    shared: numpy.ndarray  # [C] tokens before it, with which the branch before begins too; 0 for the first

    @classmethod
    def of(cls, first: int, own: Sequence[int], shared: Sequence[int]) -> "Chunk":
        """Of branches of so many rows of their `own`, from row `first` on."""
        starts = numpy.array([0, *accumulate(own)])
        return cls(slice(first, first + int(starts[-1])), starts, numpy.array(shared))


@dataclass(frozen=True, slots=True)
class Branches:
    """The rows of packed sequences."""

    chunks: list[Chunk]
    workers: int  # threads that find something to do
    token_ids_U: Tensor
    positions_U: Tensor
    rows_N: Tensor  # where in U each token's is

    @classmethod
    def of(cls, token_ids_N: Sequence[int], lengths: Sequence[int], threads: int) -> "Branches":
        """Of sequences of so many tokens, none of them 0."""
        sequences = [tuple(token_ids_N[end - length : end]) for end, length in zip(accumulate(lengths), lengths, strict=True)]
        distinct = sorted(set(sequences))
        shared = [0, *(in_common(*both) for both in pairwise(distinct))]
        own = [len(sequence) - count for sequence, count in zip(distinct, shared, strict=True)]
        workers = max(1, min(threads, len(own), sum(own) // ALONE))
        parts = chunked(own, workers, shared)
        for part in parts:  # of which each is computed by itself
            shared[part.start], own[part.start] = 0, len(distinct[part.start])
        starts = [0, *accumulate(own)]
        paths, path = {}, numpy.empty(0, numpy.int64)
        for sequence, count, start, end in zip(distinct, shared, starts[:-1], starts[1:], strict=True):
            path = numpy.concatenate([path[:count], numpy.arange(start, end)])
            paths[sequence] = path
        of_branches = list(zip(distinct, shared, strict=True))
        return cls(
            [Chunk.of(starts[part.start], own[part], shared[part]) for part in parts],
            workers,
            torch.tensor([token for sequence, count in of_branches for token in sequence[count:]]),
            torch.tensor([position for sequence, count in of_branches for position in range(count, len(sequence))]),
            torch.from_numpy(numpy.concatenate([paths[sequence] for sequence in sequences])),
        )


def in_common(one: Sequence[int], other: Sequence[int]) -> int:
    """Tokens with which both begin."""
    return next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))


def chunked(sizes: Sequence[int], multiple: int, shared: Sequence[int] | None = None) -> list[slice]:
    """Consecutive parts of about ROWS rows each; a multiple of `multiple` where there is as much to part.

    As even as can be, or within CUT of that where fewer tokens are shared (`shared`): these are computed on both sides.
    """
    ends, costs = list(accumulate(sizes)), [*([0] * len(sizes) if shared is None else shared), 0]
    count = min(len(sizes), multiple * ceil(ends[-1] / (ROWS * multiple)))
    parts, first = [], 0
    for number in range(1, count + 1):
        wanted, slack = number * ends[-1] / count, CUT * ends[-1] / count
        most = len(sizes) - count + number - 1  # later parts need one each
        nearest = bisect_left(ends, wanted, first, most)
        lowest = bisect_left(ends, wanted - slack, first, nearest)
        highest = max(nearest, bisect_right(ends, wanted + slack, nearest, most + 1) - 1)
        last = min(range(lowest, highest + 1), key=lambda i: (costs[i + 1], abs(ends[i] - wanted)))
        parts.append(slice(first, last + 1))
        first = last + 1
    return parts
