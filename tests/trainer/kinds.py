"""Small random models of the kinds that layers differ in."""

import torch
from torch import nn
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from tests.trainer.norms import plain_norms

SHAPE = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}


def models() -> dict[str, PreTrainedModel]:
    """Heads that share keys, heads that do not, biases here and there, norms of queries, and a sliding window."""
    torch.manual_seed(0)
    kinds: dict[str, PreTrainedModel] = {
        "qwen3": Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=16)),
        "qwen2": Qwen2ForCausalLM(Qwen2Config(**SHAPE, num_key_value_heads=1)),
        "llama": LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=4)),
        "sliding": MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=4)),
        "biased": LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2, attention_bias=True, mlp_bias=True)),
    }
    for model in kinds.values():
        plain_norms(model)
        for weight in model.parameters():  # norms and biases too, which begin as ones and zeros
            nn.init.normal_(weight, mean=1.0 if weight.dim() == 1 else 0.0, std=0.3)
    return kinds
