"""The layers of a small model on a CPU over packed sequences, forward and backward.

The library's layers make some forty operations each, every one of them over all rows and every one a wait of all threads for
each other. Here a chunk of sequences goes through all layers in one thread, in one kernel. Axes: N packed token of all
sequences, R that of a chunk, and those of trainer/cpu/kernels.py.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import accumulate
from math import ceil
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from trainer.cpu import passes
from trainer.cpu.threads import in_threads
from trainer.cpu.weights import Parameters, Shape, Weights, rotations, run

LONGEST = 1024  # tokens of a sequence: attention holds the square of it for each head
ROWS = 768  # tokens of a chunk, about
ALONE = 256  # tokens that are not worth a second thread


class Body:
    """The layers and the last norm of a model that fits (trainer/cpu/weights.py)."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self._shape = Shape.of(model)
        self._embed: nn.Module = body.embed_tokens
        self._rotary: nn.Module = body.rotary_emb
        self._parameters = Parameters(model)

    def __call__(self, token_ids_N: Tensor, positions_N: Tensor, lengths: Sequence[int]) -> Tensor:
        """Hidden states [N, D] behind the last norm."""
        x_ND: Tensor = self._embed(token_ids_N)
        inputs = [x_ND, *self._parameters.all()]
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        cos_NS, sin_NS = rotations(self._rotary, x_ND, positions_N)
        both = Passes(self._shape, self._parameters.weights(), lengths, cos_NS, sin_NS)
        if not keep:
            return both.forward(x_ND, keep=False)
        hidden: Tensor = _Body.apply(both, self._parameters, *inputs)  # type: ignore[no-untyped-call]
        return hidden


class _Body(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: "Passes", parameters: Parameters, x_ND: Tensor, *_: Tensor) -> Tensor:
        ctx.passes, ctx.parameters = both, parameters
        return both.forward(x_ND, keep=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_ND, grads = ctx.passes.backward(grad_ND.contiguous())
        return None, None, grad_x_ND, *ctx.parameters.gradients(grads)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sequences that go through the layers together."""

    rows: slice  # of N
    starts: numpy.ndarray  # [C + 1], counted from the first row

    def room(self, shape: Shape, weights: Weights, layers: int) -> "Room":
        """For so many layers."""
        rows, heads, size, width = int(self.starts[-1]), shape.heads, shape.size, weights.down.shape[1]
        qkv, all_heads, new = weights.qkv.shape[1], heads + shape.key_heads, weights.down.new_empty
        return Room(
            xs=new(layers + 1, rows, width),
            scales=new(layers, rows),
            qkvs=new(layers, rows, qkv),
            parts=new(layers, rows * qkv),
            head_scales=new(layers, rows, all_heads),
            log_sums=new(layers, rows * heads),
            attendeds=new(layers, rows, heads * size),
            middles=new(layers, rows, width),
            middle_scales=new(layers, rows),
            gates=new(layers, rows, weights.gate_up.shape[1]),
            last_scale=new(rows),
        )


@dataclass(frozen=True, slots=True)
class Room:
    """What `passes.forward` writes, in the order of its arguments; there is what each is."""

    xs: Tensor
    scales: Tensor
    qkvs: Tensor
    parts: Tensor
    head_scales: Tensor
    log_sums: Tensor
    attendeds: Tensor
    middles: Tensor
    middle_scales: Tensor
    gates: Tensor
    last_scale: Tensor

    def all(self) -> list[Tensor]:
        """In order."""
        return [getattr(self, field.name) for field in fields(self)]


class Passes:
    """One forward pass of packed sequences through all layers, and where it was kept one backward."""

    def __init__(self, shape: Shape, weights: Weights, lengths: Sequence[int], cos_NS: Tensor, sin_NS: Tensor) -> None:
        self._shape, self._weights = shape, weights
        self._cos, self._sin = cos_NS, sin_NS
        self._workers = max(1, min(torch.get_num_threads(), len(lengths), sum(lengths) // ALONE))
        self._chunks = chunked(lengths, self._workers)
        self._kept: dict[int, Room] = {}  # by a chunk's first row

    def forward(self, x_ND: Tensor, *, keep: bool) -> Tensor:
        """Hidden states [N, D] of embeddings [N, D]."""
        hidden_ND = torch.empty_like(x_ND)

        def work(chunks: Iterator[Chunk]) -> None:
            for chunk in chunks:
                room = chunk.room(self._shape, self._weights, len(self._weights.down) if keep else 1)
                room.xs[0] = x_ND[chunk.rows]
                run(
                    passes.forward,
                    *self._weights.all(),
                    self._shape.eps,
                    *self._given(chunk),
                    *room.all(),
                    hidden_ND[chunk.rows],
                )
                if keep:
                    self._kept[chunk.rows.start] = room

        in_threads([partial(work, iter(self._chunks))] * self._workers)  # a thread that is done takes the next chunk
        return hidden_ND

    def backward(self, grad_ND: Tensor) -> tuple[Tensor, Weights]:
        """The gradients of the embeddings and of all weights; what was kept goes."""
        if not self._kept:
            raise RuntimeError("a second backward pass: what the first one needed is gone")
        grad_x_ND = torch.empty_like(grad_ND)

        def work(chunks: Sequence[Chunk]) -> Weights:
            grads = self._weights.zeros()
            for chunk in chunks:
                kept, given = self._kept.pop(chunk.rows.start), self._given(chunk)
                rows = chunk.rows
                run(passes.backward, *self._weights.all(), *given, *kept.all(), grad_ND[rows], *grads.all(), grad_x_ND[rows])
            return grads

        # Which thread adds up which chunks is fixed, so that the same sum comes out again.
        total, *others = in_threads([partial(work, self._chunks[i :: self._workers]) for i in range(self._workers)])
        for grads in others:
            torch._foreach_add_(total.all(), grads.all())
        return grad_x_ND, total

    def _given(self, chunk: Chunk) -> tuple[object, ...]:
        return self._shape.factor, self._cos[chunk.rows], self._sin[chunk.rows], chunk.starts


def chunked(lengths: Sequence[int], multiple: int) -> list[Chunk]:
    """Consecutive sequences, about ROWS tokens each; a multiple of `multiple` where there are as many sequences."""
    ends = list(accumulate(lengths))
    count = min(len(lengths), multiple * ceil(ends[-1] / (ROWS * multiple)))
    chunks, first = [], 0
    for number in range(1, count + 1):
        # The first sequence with which an even share of the tokens is reached; later chunks need one each.
        last = bisect_left(ends, number * ends[-1] / count, first, len(lengths) - count + number - 1)
        start = ends[first] - lengths[first]
        bounds = numpy.array([start, *ends[first : last + 1]]) - start
        chunks.append(Chunk(slice(start, ends[last]), bounds))
        first = last + 1
    return chunks
