"""The weights of small models of the Llama and Qwen kinds, as the kernels want them. Axes as in trainer/cpu/kernels.py."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM

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
    head = model.get_output_embeddings()
    if head.bias is not None or head.weight.shape != body.embed_tokens.weight.shape:
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
class Weights:
    """Those of all layers, one after another, or their gradients, in the order of the kernels' arguments.

    What multiplies the same input is joined, and so are the norms of all heads; empty where a kind has none.
    """

    input_norm: Tensor  # [layers, D]
    qkv: Tensor  # [layers, (H + 2 K) S, D]
    qkv_bias: Tensor  # [layers, (H + 2 K) S]
    head_norms: Tensor  # [layers, H + K, S]
    output: Tensor  # [layers, D, H S]
    post_norm: Tensor  # [layers, D]
    gate_up: Tensor  # [layers, 2 M, D]
    down: Tensor  # [layers, D, M]
    last_norm: Tensor  # [D]

    def all(self) -> list[Tensor]:
        """In order."""
        return [getattr(self, field.name) for field in fields(self)]

    def zeros(self) -> "Weights":
        """As many zeros."""
        return Weights(*map(torch.zeros_like, self.all()))


class Parameters:
    """The parameters of a model's layers and of its last norm."""

    def __init__(self, model: PreTrainedModel) -> None:
        """`model`: one that fits."""
        body: Any = model.base_model
        self._layers = [LayerParameters(layer) for layer in body.layers]
        self._last_norm: Tensor = body.norm.weight

    def all(self) -> list[Tensor]:
        """In the order of `gradients`."""
        return [*chain.from_iterable(layer.all() for layer in self._layers), self._last_norm]

    @torch.no_grad()
    def weights(self) -> Weights:
        """A copy of them as they are now."""
        columns = zip(*(layer.weights() for layer in self._layers), strict=True)
        return Weights(*map(torch.stack, columns), self._last_norm.clone())  # type: ignore[call-arg]

    def gradients(self, of: Weights) -> list[Tensor]:
        """Each parameter's part."""
        rows = zip(*of.all()[:-1], strict=True)
        return [
            *chain.from_iterable(layer.gradients(*row) for layer, row in zip(self._layers, rows, strict=True)),
            of.last_norm,
        ]


class LayerParameters:
    """The parameters of a layer."""

    def __init__(self, layer: Any) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
        self._inputs: list[Tensor] = [part.weight for part in inputs]
        self._biases: list[Tensor] = [part.bias for part in inputs if part.bias is not None]
        self._norms: list[Tensor] = [attention.q_norm.weight, attention.k_norm.weight] if hasattr(attention, "q_norm") else []
        self._heads = [len(weight) // attention.head_dim for weight in self._inputs[:2]]
        self._size: int = attention.head_dim
        self._others: list[Tensor] = [
            layer.input_layernorm.weight,
            attention.o_proj.weight,
            layer.post_attention_layernorm.weight,
        ]
        self._mlp: list[Tensor] = [mlp.gate_proj.weight, mlp.up_proj.weight, mlp.down_proj.weight]

    def all(self) -> list[Tensor]:
        """In the order of `gradients`."""
        return [*self._inputs, *self._biases, *self._norms, *self._others, *self._mlp]

    def weights(self) -> tuple[Tensor, ...]:
        """In the order of Weights."""
        input_norm, output, post_norm = self._others
        gate, up, down = self._mlp
        none = down.new_empty(0)
        bias = torch.cat(self._biases) if self._biases else none
        norms = [norm.expand(heads, -1) for norm, heads in zip(self._norms, self._heads, strict=False)]
        head_norms = torch.cat(norms) if norms else none.view(0, self._size)
        return input_norm, torch.cat(self._inputs), bias, head_norms, output, post_norm, torch.cat([gate, up]), down

    def gradients(
        self,
        input_norm: Tensor,
        qkv: Tensor,
        qkv_bias: Tensor,
        head_norms: Tensor,
        output: Tensor,
        post_norm: Tensor,
        gate_up: Tensor,
        down: Tensor,
    ) -> list[Tensor]:
        """Each parameter's part of the gradients of `weights`."""
        rows = [len(weight) for weight in self._inputs]
        biases = torch.split(qkv_bias, rows) if self._biases else ()
        norms = [of_heads.sum(0) for of_heads in torch.split(head_norms, self._heads)] if self._norms else []
        return [*torch.split(qkv, rows), *biases, *norms, input_norm, output, post_norm, *gate_up.chunk(2), down]


def rotations(rotary: nn.Module, like: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """(cos, sin) [N, S] of positions [N]; the first half of sin negated, so that a rotation is two products and a sum."""
    (cos,), (sin,) = rotary(like, positions[None])
    first, second = sin.chunk(2, dim=-1)
    return cos, torch.cat([-first, second], dim=-1)


def run(kernel: Callable[..., None], *arguments: object) -> None:
    """Calls a kernel with tensors as arrays that share their memory."""
    kernel(*[argument.detach().numpy() if isinstance(argument, Tensor) else argument for argument in arguments])


def _unbiased(layer: Any) -> tuple[nn.Linear, ...]:
    """The linear layers whose bias is not handled."""
    return layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj
