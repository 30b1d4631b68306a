"""Continuing many prompts at once, a token a step, with a small model on a CPU, in one thread.

Axes: B row, T token, and those of trainer/cpu/kernels.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.cpu import passes
from trainer.cpu.body import Room
from trainer.cpu.branches import Chunk, chunked
from trainer.cpu.weights import Parameters, Shape, rotations, run


class SmallModel:
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
    model: SmallModel,
    prompts: Sequence[tuple[int, ...]],
    copies: Sequence[int],
    uniform_BT: Tensor,
    ends: Sequence[int],
    *,
    temperature: float,
    top_p: float,
    stop: numpy.ndarray,
) -> Drawn:
    """`copies[i]` continuations of prompt i, one at least, of at most T tokens each, up to one of the tokens `ends`.

    `uniform_BT`: the numbers between 0 and 1, float64, by which each row's tokens are drawn. `stop` [1]: where it
    becomes other than 0, what has been drawn so far is given back.
    """
    shape, weights = model.shape, model.weights
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    cos, sin = model.rotations(int(lengths.max()) + uniform_BT.shape[1])
    rows, layers = sum(copies), len(weights.down)
    keys, values = (cos.new_empty(layers, rows, shape.key_heads, len(cos), shape.size) for _ in range(2))
    counts = torch.tensor(copies)
    first_rows = counts.cumsum(0) - counts
    hidden_CD = weights.down.new_empty(len(prompts), weights.down.shape[1])
    for part in chunked(lengths.tolist(), 1):
        some = prompts[part]
        chunk = Chunk.of(0, [len(prompt) for prompt in some], [0] * len(some))
        positions = torch.cat([torch.arange(len(prompt)) for prompt in some])
        room = Room.of(chunk, shape, weights, layers)
        room.xs[0] = model.embeddings[torch.tensor([token for prompt in some for token in prompt])]
        hidden = torch.empty_like(room.xs[0])
        given = (shape.eps, shape.factor, cos[positions], sin[positions], chunk.starts, chunk.shared)
        run(passes.forward, *weights.all(), *given, *room.all(), hidden)
        for parts, of_keys, of_values in zip(room.parts, keys, values, strict=True):
            run(passes.remember, parts, chunk.starts, chunk.shared, first_rows[part], shape.heads, of_keys, of_values)
        hidden_CD[part] = hidden[torch.from_numpy(chunk.starts[1:] - 1)]
    logits = model.head.new_empty(rows, len(model.head))
    torch.mm(hidden_CD, model.head.T, out=logits[: len(prompts)])
    tokens_BT = torch.zeros(uniform_BT.shape, dtype=torch.long)
    drawn = Drawn(tokens_BT, torch.zeros(uniform_BT.shape, dtype=torch.float32), torch.zeros(rows, dtype=torch.long))
    run(
        passes.continue_rows,
        *(logits, model.embeddings, *weights.all(), model.head, shape.eps, shape.factor, cos, sin),
        *(first_rows.repeat_interleave(counts), lengths.repeat_interleave(counts), keys, values, temperature, top_p),
        *(uniform_BT, numpy.array(ends), stop, drawn.tokens_BT, drawn.logprobs_BT, drawn.counts_B),
    )
    return drawn
