"""One token a row through a small model, in half of the operations that the library's own layers take.

At a few hundred tokens a step a small model's products take microseconds, and what goes before and after each of them as
long. So products of one input are joined, norm weights are folded into the product that follows, and residuals are added by
the product before. Axes: B row, D hidden, H query head, K key head, G queries a key head, S head size, L tokens so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from transformers import LlamaForCausalLM, PreTrainedModel, Qwen2ForCausalLM, Qwen3ForCausalLM
from transformers.cache_utils import DynamicLayer

KINDS = (LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM)
LARGEST = 2**24  # parameters: beyond, products take the time, and a second copy of the weights is not small


@dataclass(frozen=True, slots=True)
class FusedLayer:
    """A layer's weights, each as the right side of a product; the norm before it is in the product."""

    qkv: Tensor  # [D, (H + 2 K) S]
    qkv_bias: Tensor | None
    norm_qk: Tensor | None  # [H + K, S], of queries and keys
    output: Tensor  # [H S, D]
    gate_up: Tensor  # [D, 2 x MLP]
    down: Tensor  # [MLP, D]


class FusedModel:
    """A copy of a model's weights as they are now. For models that `fits` names."""

    def __init__(self, model: PreTrainedModel, longest: int) -> None:
        """`longest`: positions at most."""
        config: Any = model.config
        body: Any = model.base_model
        self._heads, self._key_heads = config.num_attention_heads, config.num_key_value_heads
        self._size: int = body.layers[0].self_attn.head_dim
        self._scale: float = body.layers[0].self_attn.scaling
        self._eps = torch.tensor(config.rms_norm_eps, dtype=model.dtype)
        self._embeddings: Tensor = body.embed_tokens.weight
        cos, sin = body.rotary_emb(self._embeddings, torch.arange(longest)[None])
        sin[..., : self._size // 2] *= -1  # so that rotating is rolling
        self._rotations = torch.stack([cos[0], sin[0]], dim=1)  # [longest, 2, S]
        self._layers = [self._fused(layer) for layer in body.layers]
        self._head: Tensor = (model.get_output_embeddings().weight * body.norm.weight).T.contiguous()

    @staticmethod
    def fits(model: PreTrainedModel) -> bool:
        """True for a small model on a CPU, of a kind whose layers are those written here and in no less than float32."""
        if type(model) not in KINDS or model.device.type != "cpu" or model.num_parameters() > LARGEST:
            return False
        if model.dtype not in (torch.float32, torch.float64) or model.config.hidden_act != "silu":
            return False
        body: Any = model.base_model
        linear = [model.get_output_embeddings(), *(part for layer in body.layers for part in _unbiased(layer))]
        return body.rotary_emb.rope_type == "default" and all(part.bias is None for part in linear)

    def step(self, tokens_B: Tensor, positions_B: Tensor, mask_BL: Tensor, cache: Sequence[DynamicLayer]) -> Tensor:
        """Logits [B, V] behind one more token a row. `mask_BL` is added to the scores, the new token's column included."""
        hidden = self._embeddings[tokens_B]
        cos, sin = self._rotations[positions_B].chunk(2, dim=1)  # [B, 1, S]
        mask = mask_BL.repeat_interleave(self._key_heads, dim=0)[:, None]
        for layer, kept in zip(self._layers, cache, strict=True):
            hidden = torch.addmm(hidden, self._attention(layer, self._norm(hidden), cos, sin, mask, kept), layer.output)
            gate, up = (self._norm(hidden) @ layer.gate_up).chunk(2, dim=-1)
            hidden = torch.addmm(hidden, silu(gate).mul_(up), layer.down)
        return self._norm(hidden) @ self._head

    def _attention(
        self, layer: FusedLayer, normed: Tensor, cos: Tensor, sin: Tensor, mask: Tensor, kept: DynamicLayer
    ) -> Tensor:
        """What the heads give, [B, H S]."""
        rows, heads, key_heads, size = len(normed), self._heads, self._key_heads, self._size
        joined = normed @ layer.qkv if layer.qkv_bias is None else torch.addmm(layer.qkv_bias, normed, layer.qkv)
        joined = joined.view(rows, heads + 2 * key_heads, size)
        qk = joined[:, : heads + key_heads]
        if layer.norm_qk is not None:
            qk = self._norm(qk).mul_(layer.norm_qk)
        qk = (qk * cos).addcmul_(qk.roll(size // 2, dims=-1), sin)
        key, value = kept.update(qk[:, heads:, None], joined[:, heads + key_heads :, None])
        query = qk[:, :heads].reshape(rows * key_heads, heads // key_heads, size)
        return attend_by_products(query, key.flatten(0, 1), value.flatten(0, 1), mask, self._scale).view(rows, heads * size)

    def _norm(self, hidden: Tensor) -> Tensor:
        """Without a weight. What torch's rms_norm gives on a CPU in eight launches."""
        length = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        return hidden * torch.addcmul(self._eps, length, length, value=1 / hidden.shape[-1]).rsqrt_()

    def _fused(self, layer: Any) -> FusedLayer:
        attention, mlp = layer.self_attn, layer.mlp
        inputs = (attention.q_proj, attention.k_proj, attention.v_proj)
        norm_qk = None
        if hasattr(attention, "q_norm"):
            norms = (attention.q_norm.weight.expand(self._heads, -1), attention.k_norm.weight.expand(self._key_heads, -1))
            norm_qk = torch.cat(norms)
        return FusedLayer(
            qkv=_joined(inputs, layer.input_layernorm.weight),
            qkv_bias=None if attention.q_proj.bias is None else torch.cat([part.bias for part in inputs]),
            norm_qk=norm_qk,
            output=attention.o_proj.weight.T.contiguous(),
            gate_up=_joined((mlp.gate_proj, mlp.up_proj), layer.post_attention_layernorm.weight),
            down=mlp.down_proj.weight.T.contiguous(),
        )


def attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[B K, G, S] of query [B K, G, S], key and value [B K, L, S], mask [B K, 1, L]: what scaled_dot_product_attention gives.

    Its kernel for CPUs takes longer where a row has but one or a few queries.
    """
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
    weights = scores.softmax(-1, dtype=torch.promote_types(value.dtype, torch.float32)).to(value.dtype)
    return torch.bmm(weights, value)


def _joined(parts: Sequence[nn.Linear], norm: Tensor) -> Tensor:
    """The weights of several layers of one input [D, sum of outputs], the norm before them folded in."""
    return (torch.cat([part.weight for part in parts]) * norm).T.contiguous()


def _unbiased(layer: Any) -> tuple[nn.Linear, ...]:
    """The linear layers whose bias is not handled."""
    return layer.self_attn.o_proj, layer.mlp.gate_proj, layer.mlp.up_proj, layer.mlp.down_proj
