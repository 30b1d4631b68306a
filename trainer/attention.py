"""Causal attention over sequences that lie one after another in one row, so that no layer computes padding.

Registered with transformers as `mhpo_packed`. The lengths of the sequences travel as the keyword `sequence_lengths` of the
model's forward; no sequence sees another. Axes: H heads, N packed token, D head size.
"""

from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface

PACKED = "mhpo_packed"


def packed_attention(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    sequence_lengths: list[int] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention output [1, N, H, D] of query [1, H, N, D] and key, value [1, H_kv, N, D].

    Without `sequence_lengths` each row is one whole sequence, with no padding.
    """
    flash = sequence_lengths is not None and has_flash_attention(query, value)
    if sequence_lengths is None:
        sequence_lengths = [query.shape[2]]
    if sliding_window is not None and max(sequence_lengths) > sliding_window:
        raise NotImplementedError(f"sequences longer than the model's sliding window of {sliding_window} tokens")
    if flash:
        return flash_attention(query, key, value, sequence_lengths, scaling), None
    parts = (torch.split(tensor, sequence_lengths, dim=2) for tensor in (query, key, value))
    outputs = [
        scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=k.shape[1] != q.shape[1])
        for q, k, v in zip(*parts, strict=True)
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2), None


def has_flash_attention(query: Tensor, value: Tensor) -> bool:
    """Whether one kernel takes all sequences: in 16 bits, on NVIDIA GPUs from Ampere on, all heads of one size up to 256."""
    if query.device.type != "cuda" or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    size = query.shape[-1]
    of_one_size = size <= 256 and size % 8 == 0 and value.shape[-1] == size
    return of_one_size and torch.cuda.get_device_capability(query.device) >= (8, 0)


def flash_attention(query: Tensor, key: Tensor, value: Tensor, lengths: list[int], scaling: float | None) -> Tensor:
    """As `packed_attention` in one call, however many sequences there are."""
    ends = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(query.device)
    query_NHD, key_NHD, value_NHD = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    longest = max(lengths)
    output_NHD = varlen_attn(
        query_NHD,
        key_NHD,
        value_NHD,
        ends,
        ends,
        longest,
        longest,
        scale=scaling,
        window_size=(-1, 0),  # causal
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(output_NHD, Tensor)
    return output_NHD[None]


def no_mask(*_: Any, **__: Any) -> None:
    """The lengths say it all."""
    return


AttentionInterface.register(PACKED, packed_attention)
AttentionMaskInterface.register(PACKED, no_mask)
