"""The data of a run, named before the machinery. Torch-free except for Batch, which lives in trainer/batch.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

FinishReason = Literal["stop", "length"]
Image = str | bytes  # absolute path or URL, or the bytes of an image file


@dataclass(frozen=True, slots=True)
class Problem:
    """One row of a dataset or benchmark.

    >>> Problem(id="sums-17", index=17, prompt="3+7=", answer="10")
    """

    id: str
    index: int  # row number in its source; part of the sample seed
    prompt: str  # the text that the policy continues, template applied
    answer: str
    choices: tuple[str, ...] = ()  # texts of the options of a multiple-choice problem; the first is A
    images: tuple[Image, ...] = ()  # in the order in which the prompt speaks of them
    item: Mapping[str, Any] = field(default_factory=dict, hash=False)  # the row's other columns that are JSON, for graders


@dataclass(frozen=True, slots=True)
class Completion:
    """What the policy wrote for one prompt, end token included where it wrote one.

    >>> Completion(token_ids=(5, 9, 2), text="10", sampler_logprobs=(-0.1, -0.3, -0.01), finish_reason="stop")
    """

    token_ids: tuple[int, ...]
    text: str  # without the end token
    sampler_logprobs: tuple[float, ...]  # nats, of the distribution really sampled from, by the engine; one a token
    finish_reason: FinishReason  # "length": cut at max_new_tokens
    old_logprobs: tuple[float, ...] | None = None  # by the learner, with the weights that sampled; only with rollout.staleness


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of one completion: the weighted sum, each grader's own score, and the graders that failed on it.

    A grader in `errors` has no entry in `by_grader`; a completion with an error is left out of the loss.
    """

    reward: float
    by_grader: dict[str, float]
    errors: dict[str, str] = field(default_factory=dict)  # grader name -> what went wrong


@dataclass(frozen=True, slots=True)
class RolloutGroup:
    """All completions of one prompt with their scores and advantages; `advantages[i]` belongs to `completions[i]`."""

    problem: Problem
    prompt_token_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...]
    advantages: tuple[float, ...]  # empty until all groups of the step are there
