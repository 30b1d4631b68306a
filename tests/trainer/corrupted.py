"""`python -m tests.trainer.corrupted FOLDER`: the trainer, with one bit of one weight turned over on its way to the sampler.

The bit is the highest of the exponent of one number of the last layer's down projection, from the second push on.
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from trainer.__main__ import main
from trainer.rollout.transformers_sampler import TransformersSampler
from trainer.rollout.vllm_sampler import VllmSampler

CORRUPTED, EXPONENT_BIT = "model.layers.2.mlp.down_proj.weight", 1 << 30


def in_transit(weights: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, Tensor]]:
    for name, weight in weights:
        if name == CORRUPTED:
            bits = weight.clone().view(torch.int32)
            bits[7, 11] ^= EXPONENT_BIT
            yield name, bits.view(torch.float32)
        else:
            yield name, weight


def corrupt(sampler: type[TransformersSampler] | type[VllmSampler]) -> None:
    push = sampler.push_weights

    def push_corrupted(self: TransformersSampler | VllmSampler, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        push(self, in_transit(weights) if version > 0 else weights, version)  # type: ignore[arg-type]

    sampler.push_weights = push_corrupted  # type: ignore[method-assign]


if __name__ == "__main__":
    corrupt(TransformersSampler)
    corrupt(VllmSampler)
    main()
