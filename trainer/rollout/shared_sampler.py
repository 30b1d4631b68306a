"""Rollouts by all ranks of the learner on a CPU: each has a transformers sampler of its own and takes a part of the prompts."""

from collections.abc import Iterable, Sequence

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from trainer.ranks import Ranks
from trainer.rollout.sampler import SampleRequest, SamplingSettings, WeightSyncError
from trainer.rollout.transformers_sampler import TransformersSampler
from trainer.types import Completion


class SharedSampler(TransformersSampler):
    """The same in each rank: the leader's tells the others what it is asked, theirs give the leader what they have made.

    `stream` is the leader's alone.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ranks: Ranks) -> None:
        super().__init__(model, tokenizer)
        self._ranks = ranks

    def generate(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[tuple[Completion, ...]]:
        """In the leader all completions; in another rank none."""
        self._ranks.order("generate", requests, settings)
        rank, count = self._ranks.rank, self._ranks.count
        parts = self._ranks.to_leader(super().generate(requests[rank::count], settings))
        return [parts[place % count][place // count] for place in range(len(requests))] if parts else []

    def push_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """The others take those of their own policies, which are the leader's (`Ranks.check_same`)."""
        self._ranks.order("push_weights", version)
        super().push_weights(weights, version)

    def token_logprobs(self, sequences: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """The leader's; raises WeightSyncError where another rank's differ in a bit."""
        self._ranks.order("token_logprobs", sequences)
        rows = super().token_logprobs(sequences)
        for rank, others in enumerate(self._ranks.to_leader(rows)):
            if others != rows:
                raise WeightSyncError(f"after the weight push rank {rank} samples with other weights than rank 0")
        return rows
