"""A rank of the learner, started as trainer/rank_process.py is; one weight of its sampler is another from the first push on."""

from collections.abc import Iterable

from torch import Tensor

from tests.trainer.corrupted import in_transit
from trainer.rank_process import main
from trainer.rollout.transformers_sampler import TransformersSampler


def corrupt() -> None:
    push = TransformersSampler.push_weights

    def push_corrupted(self: TransformersSampler, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        push(self, in_transit(weights), version)

    TransformersSampler.push_weights = push_corrupted  # type: ignore[method-assign]


if __name__ == "__main__":
    corrupt()
    main()
