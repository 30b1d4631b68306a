"""Continuing many prompts at once, a token a step, with a transformers model: what `generate` does with fewer copies.

A prompt is read once however often it is continued, a step copies one token's keys and values and not those of all tokens
before, and rows that have ended leave the batch. Axes: B row, T token, V vocabulary, H head, D head size, L tokens so far.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer
from transformers.masking_utils import sdpa_mask

DECODING = "mhpo_decoding"


class Decoder:
    """Rows of one length each, padded on the left; call `read` first, then `step` and `keep` as often as wanted."""

    def __init__(self, model: PreTrainedModel, pad: int, longest: int) -> None:
        """`longest`: tokens of a row at most, prompt, padding and completion."""
        self._model = model
        self._pad = pad
        self._longest = longest
        self._length = 0  # tokens so far
        self._cache = DynamicCache(config=model.config.get_text_config(decoder=True))
        # Other kinds of layers (sliding windows, states) keep the library's cache, and its masks.
        self._plain = all(type(layer) is DynamicLayer for layer in self._cache.layers)
        if self._plain:
            self._cache = Cache(layers=[ReservedLayer(longest) for _ in self._cache.layers])
        self._mask_BL = torch.empty(0, 0)  # -inf at padding, else 0; of all tokens that there may be
        self._positions_B = torch.empty(0, dtype=torch.long)

    def read(self, prompts: Sequence[tuple[int, ...]], copies: Sequence[int]) -> Tensor:
        """Logits [B, V] behind each prompt, `copies[i]` rows of prompt i."""
        width, device = max(map(len, prompts)), self._model.device
        padding = [width - len(prompt) for prompt in prompts]
        ids = torch.tensor([[self._pad] * p + list(prompt) for p, prompt in zip(padding, prompts, strict=True)], device=device)
        padded = torch.arange(self._longest, device=device) < torch.tensor(padding, device=device)[:, None]
        self._mask_BL = torch.zeros(padded.shape, dtype=self._model.dtype, device=device).masked_fill_(padded, -torch.inf)
        self._length = width
        real = ~padded[:, :width]
        positions = (real.cumsum(-1) - 1).clamp(min=0)
        self._positions_B = positions[:, -1]
        logits_PV = self._forward(ids, positions, self._reading_mask(real))
        rows = torch.arange(len(prompts), device=device).repeat_interleave(torch.tensor(copies, device=device))
        self.keep(rows)
        return logits_PV[rows]

    def step(self, tokens_B: Tensor) -> Tensor:
        """Logits [B, V] behind one more token a row."""
        self._length += 1
        self._positions_B = self._positions_B + 1
        mask_BL = self._mask_BL[:, : self._length]
        return self._forward(tokens_B[:, None], self._positions_B[:, None], mask_BL[:, None, None])

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows only, in this order; one may be there several times."""
        self._mask_BL, self._positions_B = self._mask_BL[rows], self._positions_B[rows]
        for layer in self._cache.layers:
            layer.batch_select_indices(rows)

    def _forward(self, ids_BT: Tensor, positions_BT: Tensor, mask_B1TL: Tensor) -> Tensor:
        logits: Tensor = self._model(
            input_ids=ids_BT,
            attention_mask=mask_B1TL if self._plain else self._mask_BL[:, : self._length] == 0,
            position_ids=positions_BT,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
        return logits

    def _reading_mask(self, real_BT: Tensor) -> Tensor:
        """Causal, padding unseen; a padding token sees itself, since attention to nothing is NaN."""
        width = real_BT.shape[1]
        causal_TT = torch.ones(width, width, dtype=torch.bool, device=real_BT.device).tril()
        itself_TT = torch.eye(width, dtype=torch.bool, device=real_BT.device)
        return (causal_TT & real_BT[:, None, None]) | itself_TT


class ReservedLayer(DynamicLayer):  # type: ignore[misc] # transformers has no types
    """Keys and values of one layer [B, H, L, D], in memory that is reserved for `longest` tokens."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self._longest = longest
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (self._reserve(states) for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self._length = self._length, self._length + key_states.shape[2]
        self.keys[:, :, start : self._length] = key_states
        self.values[:, :, start : self._length] = value_states
        return self.keys[:, :, : self._length], self.values[:, :, : self._length]

    def get_seq_length(self) -> int:
        return self._length

    def batch_select_indices(self, indices: Tensor) -> None:
        self.keys, self.values = (self._select(states, indices) for states in (self.keys, self.values))

    def _select(self, states: Tensor, rows: Tensor) -> Tensor:
        kept = states.new_empty(len(rows), *states.shape[1:])
        kept[:, :, : self._length] = states[rows, :, : self._length]
        return kept

    def _reserve(self, states: Tensor) -> Tensor:
        rows, heads, _, size = states.shape
        return states.new_empty(rows, heads, self._longest, size)


def decoding_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention output [B, T, H, D] of query [B, H, T, D] and key, value [B, H_kv, L, D]; without a mask causal.

    The heads that share a key stand as so many queries where there is one token a row, so that no key is copied for them.
    """
    rows, heads, tokens, size = query.shape
    shared = heads // key.shape[1]
    if tokens == 1:
        grouped = query.reshape(rows, key.shape[1], shared, size)
        if query.device.type == "cpu" and attention_mask is not None and attention_mask.is_floating_point():
            mask = attention_mask[:, 0].repeat_interleave(key.shape[1], dim=0)
            scale = size**-0.5 if scaling is None else scaling
            output = _attend_by_products(grouped.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1), mask, scale)
        else:
            output = scaled_dot_product_attention(grouped, key, value, attn_mask=attention_mask, scale=scaling)
        return output.reshape(rows, 1, heads, size), None
    output = scaled_dot_product_attention(
        query, key, value, attn_mask=attention_mask, is_causal=attention_mask is None, scale=scaling, enable_gqa=shared > 1
    )
    return output.transpose(1, 2), None


def _attend_by_products(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """[B K, G, D] of query [B K, G, D], key and value [B K, L, D], mask [B K, 1, L]: what scaled_dot_product_attention gives.

    Its kernel for CPUs takes longer where a row has but one or a few queries.
    """
    scores = torch.baddbmm(mask, query, key.transpose(1, 2), alpha=scale)
    weights = scores.softmax(-1, dtype=torch.promote_types(value.dtype, torch.float32)).to(value.dtype)
    return torch.bmm(weights, value)


AttentionInterface.register(DECODING, decoding_attention)
AttentionMaskInterface.register(DECODING, sdpa_mask)
