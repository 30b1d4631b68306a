"""Advantages of a step: of the graders' rewards, less what the spec subtracts for length and for KL from the base model."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean

import torch

from trainer.advantages import GroupRewards, batch_advantages
from trainer.batch import TrainSequence
from trainer.config import JobSpec
from trainer.kl import kl_estimate, reward_penalty
from trainer.learner import completion_logprobs
from trainer.objective_config import KlInReward, SoftPunishment
from trainer.overlong import length_penalty
from trainer.policy import Policy
from trainer.types import RolloutGroup

Penalties = list[list[float]]  # of each completion of each group


@dataclass(frozen=True, slots=True)
class Shaped:
    """A step's groups with their advantages, and what was subtracted from their rewards."""

    groups: list[RolloutGroup]
    metrics: dict[str, float]


def shape(groups: Sequence[RolloutGroup], spec: JobSpec, reference: Policy | None) -> Shaped:
    """All groups sampled in a step get their advantages; the scores stay the graders'."""
    lengths, metrics = length_penalties(groups, spec)
    distances, more = kl_penalties(groups, spec, reference)
    rewards = [
        GroupRewards(
            [s.reward - a - b for s, a, b in zip(group.scores, length, distance, strict=True)],
            [not s.errors for s in group.scores],
        )
        for group, length, distance in zip(groups, lengths, distances, strict=True)
    ]
    advantages = batch_advantages(rewards, spec.advantages)
    with_advantages = [replace(group, advantages=own) for group, own in zip(groups, advantages, strict=True)]
    return Shaped(with_advantages, metrics | more)


def length_penalties(groups: Sequence[RolloutGroup], spec: JobSpec) -> tuple[Penalties, dict[str, float]]:
    """The soft overlong punishment of each completion, and its metrics."""
    limit = spec.rollout.max_new_tokens
    penalties = [[length_penalty(len(c.token_ids), limit, spec.overlong) for c in group.completions] for group in groups]
    if not isinstance(spec.overlong, SoftPunishment):
        return penalties, {}
    every = [penalty for group in penalties for penalty in group]
    return penalties, {"overlong/penalty_mean": fmean(every), "overlong/punished": fmean(penalty > 0 for penalty in every)}


def kl_penalties(groups: Sequence[RolloutGroup], spec: JobSpec, reference: Policy | None) -> tuple[Penalties, dict[str, float]]:
    """What the KL term subtracts from each completion's reward, and its metrics; zeros where the spec has no such term."""
    if not isinstance(spec.kl, KlInReward):
        return [[0.0] * len(group.completions) for group in groups], {}
    if reference is None:
        raise ValueError("a KL term in the reward needs a reference policy")
    sequences = [TrainSequence(g.prompt_token_ids, c.token_ids, c.sampler_logprobs, 0.0) for g in groups for c in g.completions]
    ref = [row.cpu() for row in completion_logprobs(reference, sequences, spec.resources.micro_batch_tokens)]
    ours = [torch.tensor(s.sampler_logprobs) for s in sequences]
    every = [reward_penalty(spec.kl, own, base) for own, base in zip(ours, ref, strict=True)]
    left = iter(every)
    penalties = [[next(left) for _ in group.completions] for group in groups]
    kl = float(kl_estimate("k3", torch.cat(ours), torch.cat(ref)).mean())
    return penalties, {"kl": kl, "kl/penalty_mean": fmean(every)}
