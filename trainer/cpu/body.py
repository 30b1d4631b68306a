"""The layers of a small model on a CPU over packed sequences, forward and backward.

The library's layers make some forty operations each, every one of them over all rows and every one a wait of all threads for
each other. Here a chunk of sequences goes through all layers in one thread, in one kernel, and what sequences have in common
(trainer/cpu/branches.py) goes through once. Axes: those of trainer/cpu/branches.py and of trainer/cpu/kernels.py.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers import PreTrainedModel

from trainer.cpu import passes
from trainer.cpu.branches import Branches, Chunk
from trainer.cpu.threads import in_threads
from trainer.cpu.weights import Parameters, Shape, Weights, rotations, run

LONGEST = 1024  # tokens of a sequence: attention holds the square of it for each head


class Body:
    """The layers and the last norm of a model that fits (trainer/cpu/weights.py)."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self._shape = Shape.of(model)
        self._embed: nn.Module = body.embed_tokens
        self._rotary: nn.Module = body.rotary_emb
        self._parameters = Parameters(model)

    def __call__(self, token_ids_N: Tensor, lengths: Sequence[int]) -> Tensor:
        """Hidden states [N, D] behind the last norm."""
        branches = Branches.of(token_ids_N.tolist(), lengths, torch.get_num_threads())
        x_UD: Tensor = self._embed(branches.token_ids_U)
        inputs = [x_UD, *self._parameters.all()]
        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in inputs)
        cos_US, sin_US = rotations(self._rotary, x_UD, branches.positions_U)
        both = Passes(self._shape, self._parameters.weights(), branches, cos_US, sin_US)
        if not keep:
            return both.forward(x_UD, keep=False).index_select(0, branches.rows_N)
        hidden_UD: Tensor = _Body.apply(both, self._parameters, *inputs)  # type: ignore[no-untyped-call]
        return hidden_UD.index_select(0, branches.rows_N)


class _Body(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: "Passes", parameters: Parameters, x_UD: Tensor, *_: Tensor) -> Tensor:
        ctx.passes, ctx.parameters = both, parameters
        return both.forward(x_UD, keep=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_UD: Tensor) -> tuple[Tensor | None, ...]:
        grad_x_UD, grads = ctx.passes.backward(grad_UD.contiguous())
        return None, None, grad_x_UD, *ctx.parameters.gradients(grads)


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

    @classmethod
    def of(cls, chunk: Chunk, shape: Shape, weights: Weights, layers: int) -> "Room":
        """For so many layers."""
        rows, tokens, size = int(chunk.starts[-1]), int(chunk.starts[-1] + chunk.shared.sum()), shape.size
        width, all_heads, new = weights.down.shape[1], shape.heads + shape.key_heads, weights.down.new_empty
        return cls(
            xs=new(layers + 1, rows, width),
            scales=new(layers, rows),
            qkvs=new(layers, rows, weights.qkv.shape[1]),
            parts=new(layers, (rows * shape.heads + 2 * tokens * shape.key_heads) * size),
            head_scales=new(layers, rows, all_heads),
            log_sums=new(layers, rows * shape.heads),
            attendeds=new(layers, rows, shape.heads * size),
            middles=new(layers, rows, width),
            middle_scales=new(layers, rows),
            gates=new(layers, rows, weights.gate_up.shape[1]),
            last_scale=new(rows),
        )

    def all(self) -> list[Tensor]:
        """In order."""
        return [getattr(self, field.name) for field in fields(self)]


class Passes:
    """One forward pass of rows through all layers, and where it was kept one backward."""

    def __init__(self, shape: Shape, weights: Weights, branches: Branches, cos_US: Tensor, sin_US: Tensor) -> None:
        self._shape, self._weights = shape, weights
        self._cos, self._sin = cos_US, sin_US
        self._workers, self._chunks = branches.workers, branches.chunks
        self._kept: dict[int, Room] = {}  # by a chunk's first row

    def forward(self, x_UD: Tensor, *, keep: bool) -> Tensor:
        """Hidden states [U, D] of embeddings [U, D]."""
        hidden_UD = torch.empty_like(x_UD)

        def work(chunks: Iterator[Chunk]) -> None:
            for chunk in chunks:
                room = Room.of(chunk, self._shape, self._weights, len(self._weights.down) if keep else 1)
                room.xs[0] = x_UD[chunk.rows]
                run(
                    passes.forward,
                    *self._weights.all(),
                    self._shape.eps,
                    *self._given(chunk),
                    *room.all(),
                    hidden_UD[chunk.rows],
                )
                if keep:
                    self._kept[chunk.rows.start] = room

        in_threads([partial(work, iter(self._chunks))] * self._workers)  # a thread that is done takes the next chunk
        return hidden_UD

    def backward(self, grad_UD: Tensor) -> tuple[Tensor, Weights]:
        """The gradients of the embeddings and of all weights; what was kept goes."""
        if not self._kept:
            raise RuntimeError("a second backward pass: what the first one needed is gone")
        grad_x_UD = torch.empty_like(grad_UD)

        def work(chunks: Sequence[Chunk]) -> Weights:
            grads = self._weights.zeros()
            for chunk in chunks:
                kept, given = self._kept.pop(chunk.rows.start), self._given(chunk)
                rows = chunk.rows
                run(passes.backward, *self._weights.all(), *given, *kept.all(), grad_UD[rows], *grads.all(), grad_x_UD[rows])
            return grads

        # Which thread adds up which chunks is fixed, so that the same sum comes out again.
        total, *others = in_threads([partial(work, self._chunks[i :: self._workers]) for i in range(self._workers)])
        for grads in others:
            torch._foreach_add_(total.all(), grads.all())
        return grad_x_UD, total

    def _given(self, chunk: Chunk) -> tuple[object, ...]:
        return self._shape.factor, self._cos[chunk.rows], self._sin[chunk.rows], chunk.starts, chunk.shared
