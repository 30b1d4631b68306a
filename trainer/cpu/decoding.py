"""Continuing many prompts at once, a token a step, with a small model on a CPU: all of it in one kernel, one thread.

Axes: B row, V vocabulary, and those of trainer/cpu/layer.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedModel

from trainer.cpu import kernels
from trainer.cpu.layer import Chunk, LayerWeights, Parameters, Shape, layer_forward, rotations, run


class Weights:
    """A model's weights as they are now. Of a model that fits (trainer/cpu/layer.py)."""

    def __init__(self, model: PreTrainedModel) -> None:
        body: Any = model.base_model
        self.shape = Shape.of(model)
        self.embeddings: Tensor = body.embed_tokens.weight
        self.layers = [Parameters(layer).weights() for layer in body.layers]
        self.last_norm: Tensor = body.norm.weight
        self.head = model.get_output_embeddings().weight.contiguous()
        self.stacked = stacked(self.layers)
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
    weights: Weights,
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
    shape, layers = weights.shape, weights.layers
    lengths = torch.tensor([len(prompt) for prompt in prompts])
    cos, sin = weights.rotations(int(lengths.max()) + uniform_BT.shape[1])
    starts = numpy.array([0, *accumulate(lengths.tolist())])
    positions = torch.cat([torch.arange(len(prompt)) for prompt in prompts])
    rows = torch.arange(len(prompts)).repeat_interleave(torch.tensor(copies))
    x = weights.embeddings[torch.tensor([token for prompt in prompts for token in prompt])]
    keys, values = (x.new_empty(len(layers), len(rows), shape.key_heads, len(cos), shape.size) for _ in range(2))
    for layer, of_keys, of_values in zip(layers, keys, values, strict=True):
        x, kept = layer_forward(shape, layer, Chunk(slice(0, len(x)), starts), x, cos[positions], sin[positions])
        longest = kept.heads.key.shape[2]
        of_keys[:, :, :longest] = kept.heads.key[rows]
        of_values[:, :, :longest] = kept.heads.value[rows]
    last = x[torch.from_numpy(starts[1:] - 1)]
    normed = torch.empty_like(last)
    run(kernels.norm, last, weights.last_norm, shape.eps, normed, x.new_empty(len(last)))
    logits = (normed @ weights.head.T)[rows]
    tokens_BT = torch.zeros(uniform_BT.shape, dtype=torch.long)
    drawn = Drawn(tokens_BT, torch.zeros(uniform_BT.shape, dtype=torch.float32), torch.zeros(len(rows), dtype=torch.long))
    run(
        kernels.continue_rows,
        *(logits, weights.embeddings, *weights.stacked, weights.last_norm, weights.head, shape.eps, shape.factor, cos, sin),
        *(lengths[rows], keys, values, temperature, top_p, uniform_BT, numpy.array(ends)),
        *(drawn.tokens_BT, drawn.logprobs_BT, drawn.counts_B),
    )
    return drawn


def stacked(layers: Sequence[LayerWeights]) -> list[Tensor]:
    """The weights of all layers, one after another, in the order of LayerWeights' fields; empty where there is none."""
    columns = ([getattr(layer, field.name) for layer in layers] for field in fields(LayerWeights))
    return [layers[0].down.new_empty(0, 0) if column[0] is None else torch.stack(column) for column in columns]
