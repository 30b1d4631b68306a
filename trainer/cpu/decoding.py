"""Continuing many prompts at once, a token a step, with a small model on a CPU: all of it in one kernel, one thread.

Axes: B row, T token, and those of trainer/cpu/kernels.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.cpu import passes
from trainer.cpu.body import Chunk
from trainer.cpu.weights import Parameters, Shape, rotations, run


class Model:
    """A copy of a model's weights as they are now. Of a model that fits (trainer/cpu/weights.py)."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self.shape = Shape.of(model)
        self.weights = Parameters(model).weights()
        self.embeddings: Tensor = body.embed_tokens.weight.detach()
        self.head = model.get_output_embeddings().weight.detach().contiguous()
        self._rotary: Any = body.rotary_emb

    def rotations(self, longest: int) -> tuple[Tensor, Tensor]:
        """(cos, sin) [L, S] of all positions."""
        return rotations(self._rotary, self.embeddings, torch.arange(longest))


@dataclass(frozen=True, slots=True)
class Drawn:
    """Rows in the order of their prompts; what lies behind a row's count is no token."""

    tokens_BT: Tensor
    logprobs_BT: Tensor  # nats, of the distribution that was drawn from
    counts_B: Tensor


def continue_prompts(
    model: Model,
    prompts: Sequence[tuple[int, ...]],
    copies: Sequence[int],
    uniform_BT: Tensor,
    ends: Sequence[int],
    *,
    temperature: float,
    top_p: float,
) -> Drawn:
    """`copies[i]` continuations of prompt i, at most T tokens each, up to one of the tokens `ends`.

    `uniform_BT`: the numbers between 0 and 1, float64, by which each row's tokens are drawn; no row depends on another.
    """
    shape, weights = model.shape, model.weights
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    cos, sin = model.rotations(int(lengths.max()) + uniform_BT.shape[1])
    starts = numpy.array([0, *accumulate(lengths.tolist())])
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
    chunk, layers = Chunk(slice(0, len(positions)), starts), len(weights.down)
    room = chunk.room(shape, weights, layers)
    room[0][0] = model.embeddings[torch.tensor([token for prompt in prompts for token in prompt])]
    hidden = torch.empty_like(room[0][0])
    given = (shape.eps, shape.factor, cos[positions], sin[positions], starts)
    run(passes.forward, *weights.all(), *given, *room, hidden)

    rows = torch.arange(len(prompts)).repeat_interleave(torch.tensor(copies))
    keys, values = (hidden.new_empty(layers, len(rows), shape.key_heads, len(cos), shape.size) for _ in range(2))
    for parts, of_keys, of_values in zip(room[3], keys, values, strict=True):
        run(passes.remember, parts, starts, numpy.array(copies), shape.heads, of_keys, of_values)
    logits = (hidden[torch.from_numpy(starts[1:] - 1)] @ model.head.T)[rows]
    tokens_BT = torch.zeros(uniform_BT.shape, dtype=torch.long)
    drawn = Drawn(tokens_BT, torch.zeros(uniform_BT.shape, dtype=torch.float32), torch.zeros(len(rows), dtype=torch.long))
    run(
        passes.continue_rows,
        *(logits, model.embeddings, *weights.all(), model.head, shape.eps, shape.factor, cos, sin),
        *(lengths[rows], keys, values, temperature, top_p, uniform_BT, numpy.array(ends)),
        *(drawn.tokens_BT, drawn.logprobs_BT, drawn.counts_B),
    )
    return drawn
