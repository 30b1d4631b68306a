"""A decoder layer of the Llama and Qwen kinds on a CPU, forward and backward, in matrix products and the kernels between them.

Axes: R row (a token of a chunk), and those of trainer/cpu/kernels.py.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

from trainer.cpu import kernels
from trainer.cpu.blas import SGEMM

KINDS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
LARGEST = 2**24  # parameters: beyond, products take the time, and a gradient and a copy of the weights a thread are not small


def fits(model: PreTrainedModel) -> bool:
    """True for a small model on a CPU, of a kind whose layers are those written here and in no less than float32."""
    if SGEMM is None or type(model) not in KINDS or model.device.type != "cpu" or model.num_parameters() > LARGEST:
        return False
    config, body = model.config, model.base_model
    if model.dtype not in (torch.float32, torch.float64) or config.hidden_act != "silu":
        return False
    if "sliding_attention" in (getattr(config, "layer_types", None) or ()):
        return False
    return body.rotary_emb.rope_type == "default" and all(
        part.bias is None for layer in body.layers for part in _unbiased(layer)
    )


@dataclass(frozen=True, slots=True)
class Shape:
    """What the layers of a model have in common."""

    heads: int
    key_heads: int
    size: int
    factor: float  # of the products of queries and keys
    eps: float

    @classmethod
    def of(cls, model: PreTrainedModel) -> "Shape":
        """Of a model that fits."""
        config: Any = model.config
        attention: Any = model.base_model.layers[0].self_attn
        heads, key_heads = config.num_attention_heads, config.num_key_value_heads
        return cls(heads, key_heads, attention.head_dim, attention.scaling, config.rms_norm_eps)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """A layer's weights, or their gradients; those that multiply the same input are joined, and the norms of all heads."""

    input_norm: Tensor  # [D]
    qkv: Tensor  # [(H + 2 K) S, D]
    qkv_bias: Tensor | None  # [(H + 2 K) S]
    head_norms: Tensor  # [H + K, S], or empty
    output: Tensor  # [D, H S]
    post_norm: Tensor  # [D]
    gate_up: Tensor  # [2 M, D]
    down: Tensor  # [D, M]

    def zeros(self) -> "LayerWeights":
        """As many zeros."""
        return LayerWeights(*(None if one is None else torch.zeros_like(one) for one in self._all()))  # type: ignore[arg-type]

    def add(self, other: "LayerWeights") -> None:
        """Adds those of another."""
        for mine, given in zip(self._all(), other._all(), strict=True):
            if mine is not None and given is not None:
                mine.add_(given)

    def _all(self) -> list[Tensor | None]:
        return [getattr(self, field.name) for field in fields(self)]


class Parameters:
    """The parameters of a layer of one of KINDS."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._inputs = [attention.q_proj, attention.k_proj, attention.v_proj]
        self._norms = [attention.q_norm.weight, attention.k_norm.weight] if hasattr(attention, "q_norm") else []
        self._biases = [part.bias for part in self._inputs if part.bias is not None]
        self._heads = [len(part.weight) // attention.head_dim for part in self._inputs[:2]]
        self._others = [layer.input_layernorm.weight, attention.o_proj.weight, layer.post_attention_layernorm.weight]
        self._mlp = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]

    def all(self) -> list[Tensor]:
        """In the order of `gradients`."""
        return [*(part.weight for part in self._inputs), *self._biases, *self._norms, *self._others, *self._mlp]

    def weights(self) -> LayerWeights:
        """As they are now."""
        norms = [norm.expand(heads, -1) for norm, heads in zip(self._norms, self._heads, strict=False)]
        input_norm, output, post_norm = self._others
        gate, up, down = self._mlp
        return LayerWeights(
            input_norm=input_norm,
            qkv=torch.cat([part.weight for part in self._inputs]),
            qkv_bias=torch.cat(self._biases) if self._biases else None,
            head_norms=torch.cat(norms) if norms else down.new_empty(0, 0),
            output=output,
            post_norm=post_norm,
            gate_up=torch.cat([gate, up]),
            down=down,
        )

    def gradients(self, of: LayerWeights) -> list[Tensor]:
        """Each parameter's part of the gradients of the joined weights."""
        rows = [len(part.weight) for part in self._inputs]
        biases = () if of.qkv_bias is None else torch.split(of.qkv_bias, rows)
        norms = [of_heads.sum(0) for of_heads in torch.split(of.head_norms, self._heads)] if self._norms else []
        parts = (*torch.split(of.qkv, rows), *biases, *norms)
        return [*parts, of.input_norm, of.output, of.post_norm, *of.gate_up.chunk(2), of.down]


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sequences that go through the layers together."""

    rows: slice  # of N
    starts: numpy.ndarray  # [C + 1], counted from the first row


@dataclass(frozen=True, slots=True)
class Kept:
    """What the backward pass of a layer needs of the forward one; the rest it makes again."""

    x: Tensor  # [R, D]
    scale: Tensor  # [R], of the norm
    qkv: Tensor
    heads: "Heads"
    head_scale: Tensor  # [R, H + K]
    log_sum: Tensor  # [C, H, L]
    attended: Tensor  # [R, H S]
    middle: Tensor  # [R, D], what goes into the MLP's norm
    middle_scale: Tensor  # [R]
    gate_up: Tensor  # [R, 2 M]


def layer_forward(
    shape: Shape, weights: LayerWeights, chunk: Chunk, x: Tensor, cos: Tensor, sin: Tensor
) -> tuple[Tensor, Kept]:
    """A decoder layer's output [R, D] of its input, and what the backward pass needs."""
    qkv, scale = project(shape, weights, x)
    heads, head_scale = Heads.of(shape, weights, chunk, qkv, cos, sin)
    attended, log_sum = heads.attend()
    out, middle, middle_scale, gate_up = finish(shape, weights, x, attended)
    return out, Kept(x, scale, qkv, heads, head_scale, log_sum, attended, middle, middle_scale, gate_up)


def project(shape: Shape, weights: LayerWeights, x: Tensor) -> tuple[Tensor, Tensor]:
    """(queries, keys and values [R, (H + 2 K) S], the norm's scale [R])."""
    normed, scale = torch.empty_like(x), x.new_empty(len(x))
    run(kernels.norm, x, weights.input_norm, shape.eps, normed, scale)
    if weights.qkv_bias is None:
        return normed @ weights.qkv.T, scale
    return torch.addmm(weights.qkv_bias, normed, weights.qkv.T), scale


def finish(shape: Shape, weights: LayerWeights, x: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What follows attention: (the layer's output, the MLP's input before its norm, that norm's scale, gate and up)."""
    middle = torch.addmm(x, attended, weights.output.T)
    normed, scale = torch.empty_like(middle), x.new_empty(len(x))
    run(kernels.norm, middle, weights.post_norm, shape.eps, normed, scale)
    gate_up = normed @ weights.gate_up.T
    gated = x.new_empty(len(x), weights.down.shape[1])
    run(kernels.gate, gate_up, gated)
    return torch.addmm(middle, gated, weights.down.T), middle, scale, gate_up


def layer_backward(
    shape: Shape, weights: LayerWeights, chunk: Chunk, kept: Kept, cos: Tensor, sin: Tensor, grad: Tensor, grads: LayerWeights
) -> None:
    """Makes of `grad` [R, D], the gradient of a layer's output, that of its input; adds the weights' to `grads`."""
    normed, gated = torch.empty_like(grad), grad.new_empty(len(grad), weights.down.shape[1])
    of_gate_up = torch.empty_like(kept.gate_up)
    run(kernels.gate_backward, kept.gate_up, grad @ weights.down, gated, of_gate_up)
    _add_product(grads.down, grad, gated)
    of_normed = of_gate_up @ weights.gate_up
    run(kernels.norm_backward, kept.middle, weights.post_norm, kept.middle_scale, of_normed, grads.post_norm, grad, normed)
    _add_product(grads.gate_up, of_gate_up, normed)

    of_heads, of_qkv = kept.heads.attend_backward(kept.log_sum, grad @ weights.output), torch.empty_like(kept.qkv)
    _add_product(grads.output, grad, kept.attended)
    given = (kept.qkv, weights.head_norms, shape.factor, cos, sin, chunk.starts, kept.head_scale)
    run(kernels.to_heads_backward, *given, of_heads.query, of_heads.key, of_heads.value, grads.head_norms, of_qkv)
    torch.mm(of_qkv, weights.qkv, out=of_normed)
    run(kernels.norm_backward, kept.x, weights.input_norm, kept.scale, of_normed, grads.input_norm, grad, normed)
    _add_product(grads.qkv, of_qkv, normed)
    if grads.qkv_bias is not None:
        grads.qkv_bias.add_(of_qkv.sum(0))


@dataclass(frozen=True, slots=True)
class Heads:
    """Queries, times the products' factor, [C, H, L, S], keys and values [C, K, L, S], or their gradients; 0 at no token."""

    starts: numpy.ndarray  # [C + 1]
    query: Tensor
    key: Tensor
    value: Tensor

    @classmethod
    def of(
        cls, shape: Shape, weights: LayerWeights, chunk: Chunk, qkv: Tensor, cos: Tensor, sin: Tensor
    ) -> "tuple[Heads, Tensor]":
        """And the scales of the heads' norms [R, H + K]."""
        query, key, value = (
            qkv.new_empty(len(chunk.starts) - 1, heads, int(numpy.diff(chunk.starts).max()), shape.size)
            for heads in (shape.heads, shape.key_heads, shape.key_heads)
        )
        scale = qkv.new_empty(len(qkv), shape.heads + shape.key_heads)
        given = (qkv, weights.head_norms, shape.eps, shape.factor, cos, sin, chunk.starts)
        run(kernels.to_heads, *given, query, key, value, scale)
        return cls(chunk.starts, query, key, value), scale

    def attend(self) -> tuple[Tensor, Tensor]:
        """(attention's output [R, H S], the log of each query's sum of exponentials [C, H, L])."""
        query, key, value = self._grouped(self.query), self.key.flatten(0, 1), self.value.flatten(0, 1)
        weights = torch.bmm(query, key.transpose(1, 2))
        log_sum = query.new_empty(self.query.shape[:3])
        run(kernels.weigh, weights.view(*log_sum.shape, -1), self.starts, log_sum)
        out = query.new_empty(int(self.starts[-1]), self.query.shape[1] * self.query.shape[3])
        run(kernels.gather, torch.bmm(weights, value).view(self.query.shape), self.starts, out)
        return out, log_sum

    def attend_backward(self, log_sum: Tensor, grad: Tensor) -> "Heads":
        """The gradients, of that of attention's output [R, H S]."""
        query, key, value = self._grouped(self.query), self.key.flatten(0, 1), self.value.flatten(0, 1)
        of_heads = torch.empty_like(self.query)
        run(kernels.spread, grad, self.starts, of_heads)
        of_out = self._grouped(of_heads)
        weights, of_weights = torch.bmm(query, key.transpose(1, 2)), torch.bmm(of_out, value.transpose(1, 2))
        by_head = (*log_sum.shape, -1)
        run(kernels.weigh_backward, weights.view(by_head), self.starts, log_sum, of_weights.view(by_head))
        return Heads(
            self.starts,
            torch.bmm(of_weights, key).view(self.query.shape),
            torch.bmm(of_weights.transpose(1, 2), query).view(self.key.shape),
            torch.bmm(weights.transpose(1, 2), of_out).view(self.value.shape),
        )

    def _grouped(self, of_queries: Tensor) -> Tensor:
        """[C K, G L, S]: the G heads that share a key head, one after another."""
        return of_queries.view(self.key.shape[0] * self.key.shape[1], -1, self.key.shape[-1])


def rotations(rotary: nn.Module, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) [N, S] of positions [N]."""
    cos, sin = rotary(like, positions[None])
    return cos[0], sin[0]


def run(kernel: Callable[..., None], *arguments: object) -> None:
    """Calls a kernel with tensors as arrays that share their memory."""
    kernel(*[argument.detach().numpy() if isinstance(argument, Tensor) else argument for argument in arguments])


def _add_product(total: Tensor, grad: Tensor, inputs: Tensor) -> None:
    """Adds a weight's gradient [outputs, inputs], of its outputs' gradient and its inputs."""
    torch.addmm(total, grad.T, inputs, out=total)


def _unbiased(layer: Any) -> tuple[nn.Linear, ...]:
    """The linear layers whose bias is not handled."""
    return layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj
