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
from trainer.cpu.body import chunked
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
    """`copies[i]` continuations of prompt i, at most T tokens each, up to one of the tokens `ends`.

    `uniform_BT`: the numbers between 0 and 1, float64, by which each row's tokens are drawn. `stop` [1]: where it
    becomes other than 0, what has been drawn so far is given back.
    """
    shape, weights = model.shape, model.weights
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    cos, sin = model.rotations(int(lengths.max()) + uniform_BT.shape[1])
    rows, layers = sum(copies), len(weights.down)
    keys, values = (cos.new_empty(layers, rows, shape.key_heads, len(cos), shape.size) for _ in range(2))
    hidden_CD, first, place = weights.down.new_empty(len(prompts), weights.down.shape[1]), 0, 0
    for chunk in chunked(lengths.tolist(), 1):
        count = len(chunk.starts) - 1
        some, of_some = prompts[first : first + count], numpy.array(copies[first : first + count])
        positions = torch.cat([torch.arange(len(prompt)) for prompt in some])
        room = chunk.room(shape, weights, layers)
        room.xs[0] = model.embeddings[torch.tensor([token for prompt in some for token in prompt])]
        hidden = torch.empty_like(room.xs[0])
        given = (shape.eps, shape.factor, cos[positions], sin[positions], chunk.starts)
        run(passes.forward, *weights.all(), *given, *room.all(), hidden)
        for parts, of_keys, of_values in zip(room.parts, keys, values, strict=True):
            run(passes.remember, parts, chunk.starts, of_some, shape.heads, of_keys[place:], of_values[place:])
        hidden_CD[first : first + count] = hidden[torch.from_numpy(chunk.starts[1:] - 1)]
        first, place = first + count, place + int(of_some.sum())
    logits = (hidden_CD @ model.head.T).repeat_interleave(torch.tensor(copies), dim=0)
    tokens_BT = torch.zeros(uniform_BT.shape, dtype=torch.long)
    drawn = Drawn(tokens_BT, torch.zeros(uniform_BT.shape, dtype=torch.float32), torch.zeros(rows, dtype=torch.long))
    run(
        passes.continue_rows,
        *(logits, model.embeddings, *weights.all(), model.head, shape.eps, shape.factor, cos, sin),
        *(
            lengths.repeat_interleave(torch.tensor(copies)),
            keys,
            values,
            temperature,
            top_p,
            uniform_BT,
            numpy.array(ends),
            stop,
        ),
        *(drawn.tokens_BT, drawn.logprobs_BT, drawn.counts_B),
    )
    return drawn
