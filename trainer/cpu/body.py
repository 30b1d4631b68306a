"""The layers of a small model on a CPU over packed sequences, forward and backward.

The library's layers make some forty operations each, every one of them over all rows and every one a wait of all threads for
each other. Here a chunk of sequences goes through all layers in one thread. Axes: N packed token of all sequences, and those
of trainer/cpu/layer.py.
"""

from bisect import bisect_left
from collections.abc import Sequence
from functools import partial
from itertools import accumulate, chain
from math import ceil
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from trainer.cpu import kernels
from trainer.cpu.layer import Chunk, Kept, LayerWeights, Parameters, Shape, layer_backward, layer_forward, rotations, run
from trainer.cpu.threads import in_threads

LONGEST = 1024  # tokens of a sequence: attention holds the square of it for each head
ROWS = 768  # tokens of a chunk, about


class Body:
    """The layers and the last norm of a model that fits (trainer/cpu/layer.py)."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self._shape = Shape.of(model)
        self._embed: nn.Module = body.embed_tokens
        self._rotary: nn.Module = body.rotary_emb
        self._layers = [Parameters(layer) for layer in body.layers]
        self._last_norm: Tensor = body.norm.weight

    def __call__(self, token_ids_N: Tensor, positions_N: Tensor, lengths: Sequence[int]) -> Tensor:
        """Hidden states [N, D] behind the last norm."""
        x_ND: Tensor = self._embed(token_ids_N)
        cos_NS, sin_NS = rotations(self._rotary, x_ND, positions_N)
        passes = Passes(self._shape, self._layers, self._last_norm, lengths, cos_NS, sin_NS)
        inputs = [x_ND, *(tensor for layer in self._layers for tensor in layer.all()), self._last_norm]
        if not (torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)):
            return passes.forward(x_ND, keep=False)
        hidden: Tensor = _Body.apply(passes, *inputs)  # type: ignore[no-untyped-call]
        return hidden


class _Body(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, passes: "Passes", x_ND: Tensor, *_: Tensor) -> Tensor:
        ctx.passes = passes
        return passes.forward(x_ND, keep=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_ND: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_ND, grads = ctx.passes.backward(grad_ND.contiguous())
        return None, grad_x_ND, *grads


class Passes:
    """One forward pass of packed sequences through all layers, and where it was kept one backward."""

    def __init__(
        self,
        shape: Shape,
        layers: Sequence[Parameters],
        last_norm: Tensor,
        lengths: Sequence[int],
        cos_NS: Tensor,
        sin_NS: Tensor,
    ) -> None:
        self._shape = shape
        self._parameters = layers
        with torch.no_grad():
            self._layers = [layer.weights() for layer in layers]
        self._last_norm = last_norm
        self._cos, self._sin = cos_NS, sin_NS
        workers = min(torch.get_num_threads(), len(lengths))
        chunks = chunked(lengths, workers)
        self._shares = [chunks[i::workers] for i in range(workers)]  # a thread's chunks
        self._kept: dict[int, tuple[list[Kept], Tensor, Tensor]] = {}  # by a chunk's first row: layers, and of the last norm

    def forward(self, x_ND: Tensor, *, keep: bool) -> Tensor:
        """Hidden states [N, D] of embeddings [N, D]."""
        hidden_ND = torch.empty_like(x_ND)

        def work(chunks: Sequence[Chunk]) -> None:
            for chunk in chunks:
                kept: list[Kept] = []
                x, cos, sin = x_ND[chunk.rows], self._cos[chunk.rows], self._sin[chunk.rows]
                for layer in self._layers:
                    x, of_layer = layer_forward(self._shape, layer, chunk, x, cos, sin)
                    if keep:
                        kept.append(of_layer)
                scale = x.new_empty(len(x))
                run(kernels.norm, x, self._last_norm, self._shape.eps, hidden_ND[chunk.rows], scale)
                if keep:
                    self._kept[chunk.rows.start] = kept, x, scale

        in_threads([partial(work, chunks) for chunks in self._shares])
        return hidden_ND

    def backward(self, grad_ND: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The gradients of the embeddings and of all weights; what was kept goes."""
        grad_x_ND = torch.empty_like(grad_ND)

        def work(chunks: Sequence[Chunk]) -> tuple[list[LayerWeights], Tensor]:
            grads, of_last = [layer.zeros() for layer in self._layers], torch.zeros_like(self._last_norm)
            for chunk in chunks:
                kept, x, scale = self._kept.pop(chunk.rows.start)
                grad = grad_x_ND[chunk.rows].zero_()
                run(kernels.norm_backward, x, self._last_norm, scale, grad_ND[chunk.rows], of_last, grad, torch.empty_like(x))
                cos, sin = self._cos[chunk.rows], self._sin[chunk.rows]
                for layer, of_layer in zip(reversed(self._layers), reversed(grads), strict=True):
                    layer_backward(self._shape, layer, chunk, kept.pop(), cos, sin, grad, of_layer)
            return grads, of_last

        (total, of_last), *others = in_threads([partial(work, chunks) for chunks in self._shares])
        for grads, also_of_last in others:
            of_last += also_of_last
            for mine, given in zip(total, grads, strict=True):
                mine.add(given)
        by_layer = [layer.gradients(of_layer) for layer, of_layer in zip(self._parameters, total, strict=True)]
        return grad_x_ND, [*chain.from_iterable(by_layer), of_last]


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
