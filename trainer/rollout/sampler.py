"""The one seam between the learner and whatever generates text."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from trainer.types import Completion

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One prompt and the seed of each completion wanted of it."""

    prompt_token_ids: tuple[int, ...]
    seeds: tuple[int, ...]
    images: tuple[bytes, ...] = ()  # files, one for each image token of the prompt, in its order


@dataclass(frozen=True, slots=True)
class SamplingSettings:
    """How to sample. Temperature 0 is greedy."""

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()


Finished = tuple[int, int, Completion]
"""Place of the request, place of the completion's seed in it, and the completion."""


class Sampler(Protocol):
    """Generates completions with the weights it was last given."""

    def generate(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[tuple[Completion, ...]]:
        """`start` and `finish`. The completions of each request, in the order of its seeds; all are in flight together."""

    def stream(self, requests: Sequence[tuple[SampleRequest, SamplingSettings]]) -> Iterator[list[Finished]]:
        """The completions as they are finished, in any order; all are in flight together, each with its own settings.

        Nothing else may be asked of the sampler until the last has come.
        """

    def start(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> None:
        """Asks for completions by the present weights. Until `finish` nothing else may be asked of the sampler."""

    def finish(self) -> list[tuple[Completion, ...]]:
        """Waits for what `start` asked for."""

    def push_weights(self, weights: Iterable[tuple[str, "Tensor"]], version: int) -> None:
        """Replaces all weights by `weights` (Hugging Face names; a tied head only once) and forgets cached prefixes.

        Raises WeightSyncError where a weight is missing or unknown.
        """

    def token_logprobs(self, sequences: Sequence[tuple[int, ...]]) -> list[list[float]]:
        """Log-probabilities, nats, temperature 1, of tokens 1.. of each sequence given those before: the weight proof."""

    def rest(self) -> None:
        """Gives back what memory it can, until it is asked for something."""

    def close(self) -> None:
        """Frees the engine and ends its processes."""


class WeightSyncError(RuntimeError):
    """The rollout engine does not have the learner's weights."""


def sample_seed(job_seed: int, step: int, problem_index: int, sample: int) -> int:
    """The seed of one completion: a 63-bit hash, so that no two samples of a run share one and a resumed run repeats them."""
    text = f"{job_seed}/{step}/{problem_index}/{sample}"
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
