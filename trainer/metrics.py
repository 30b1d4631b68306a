"""What a step's line in metrics.jsonl says. TRL's names where TRL has the name; docs/metrics.md explains each.

Means over tokens are over trained tokens of the whole step; means over completions leave out those whose grading failed.
"""

from collections.abc import Sequence
from statistics import fmean, pstdev, stdev

import torch
from torch import Tensor

from trainer.advantages import has_signal
from trainer.algorithm_config import Algorithm
from trainer.correction import effective_sample_size
from trainer.learner import TokenRecord, Update
from trainer.losses.multiplier import on_policy_multiplier
from trainer.losses.telemetry import telemetry_metrics
from trainer.types import Completion, RolloutGroup, Score

# Metrics that depend on the machine and its load; all others are the same in every run of one spec on one kind of machine.
WALL_CLOCK = ("time/", "perf/", "step_time")


def is_wall_clock(name: str) -> bool:
    """True for a metric that two runs of one spec need not share."""
    return name.startswith(WALL_CLOCK)


def rollout_metrics(groups: Sequence[RolloutGroup], grader_names: Sequence[str]) -> dict[str, float]:
    """Rewards, signal and lengths of a step."""
    scores = [score for group in groups for score in group.scores]
    rewards = [score.reward for score in scores if not score.errors]
    spread = [group_std(group) for group in groups]
    metrics = {
        "reward": _mean(rewards),
        "reward_std": _mean(spread),
        "frac_reward_zero_std": _mean([std == 0.0 for std in spread]),
        "grading/failed": float(sum(bool(score.errors) for score in scores)),
    }
    for name in grader_names:
        metrics |= _grader_metrics(name, scores)
    return metrics | length_metrics([c for group in groups for c in group.completions])


def group_std(group: RolloutGroup) -> float:
    """Standard deviation (n - 1) of a group's rewards; 0 where fewer than two completions could be graded."""
    rewards = [score.reward for score in group.scores if not score.errors]
    return stdev(rewards) if len(rewards) > 1 else 0.0


def zero_variance_metrics(groups: Sequence[RolloutGroup], prompts_per_step: int) -> dict[str, float]:
    """Groups without a signal, and problems drawn in their place."""
    return {
        "zero_variance/groups": float(sum(not has_signal(group) for group in groups)),
        "zero_variance/extra_prompts": float(len(groups) - prompts_per_step),
    }


def correction_metrics(record: TokenRecord) -> dict[str, float]:
    """The factors by which the sampler/learner correction multiplies the tokens' losses."""
    weights, bounded = torch.cat(record.correction_weights), torch.cat(record.correction_bounded)
    return {
        "correction/weight_mean": float(weights.mean()),
        "correction/weight_max": float(weights.max()),
        "correction/effective_sample_size": effective_sample_size(weights),
        "correction/bounded_fraction": float(bounded.float().mean()),
    }


def _grader_metrics(name: str, scores: Sequence[Score]) -> dict[str, float]:
    values = [score.by_grader[name] for score in scores if name in score.by_grader]
    return {
        f"rewards/{name}/mean": _mean(values),
        f"rewards/{name}/std": pstdev(values) if values else 0.0,
        f"rewards/{name}/errors": float(sum(name in score.errors for score in scores)),
    }


def length_metrics(completions: Sequence[Completion]) -> dict[str, float]:
    """Completion lengths in tokens, end token included, and the share cut at the limit."""
    lengths = [len(c.token_ids) for c in completions]
    ended = [len(c.token_ids) for c in completions if c.finish_reason == "stop"]
    metrics = {
        "completions/mean_length": fmean(lengths),
        "completions/min_length": float(min(lengths)),
        "completions/max_length": float(max(lengths)),
        "completions/clipped_ratio": 1 - len(ended) / len(lengths),
    }
    if ended:
        metrics |= {
            "completions/mean_terminated_length": fmean(ended),
            "completions/min_terminated_length": float(min(ended)),
            "completions/max_terminated_length": float(max(ended)),
        }
    return metrics


def learner_metrics(updates: Sequence[Update], record: TokenRecord, algorithm: Algorithm) -> dict[str, float]:
    """Loss, gradient, and how far policy, old policy and sampler are apart. Empty where no update was made."""
    if not updates:
        return {}
    logprobs, old, sampler = (torch.cat(rows) for rows in (record.logprobs, record.old_logprobs, record.sampler_logprobs))
    grad_norm = fmean(u.grad_norm for u in updates)
    gap = (old - sampler).abs()
    is_ratio = (old - sampler).exp()
    return (
        {
            "loss": fmean(u.loss for u in updates),
            "loss/tokens": float(len(logprobs)),
            "grad_norm": grad_norm,
            "grad_norm/on_policy": grad_norm / on_policy_multiplier(algorithm),  # comparable between algorithms
            "learning_rate": updates[-1].lr,
            "entropy": _tensor_mean(record.entropy),
            "kl/rollout": float((torch.expm1(logprobs - sampler) - (logprobs - sampler)).mean()),
            "sampling/sampling_logp_difference/mean": float(gap.mean()),
            "sampling/sampling_logp_difference/max": float(gap.max()),
            "sampling/importance_sampling_ratio/min": float(is_ratio.min()),
            "sampling/importance_sampling_ratio/mean": float(is_ratio.mean()),
            "sampling/importance_sampling_ratio/max": float(is_ratio.max()),
        }
        | ({"kl": _tensor_mean(record.kl)} if record.kl else {})
        | correction_metrics(record)
        | ratio_metrics(logprobs - old)
        | telemetry_metrics({name: torch.cat(rows) for name, rows in record.telemetry.items()}, logprobs - old, algorithm)
    )


def ratio_metrics(log_ratio: Tensor) -> dict[str, float]:
    """The importance ratio exp(log pi_theta - log pi_old), and how far its logarithm is from 0."""
    ratio = log_ratio.exp()
    return {
        "ratio/min": float(ratio.min()),
        "ratio/mean": float(ratio.mean()),
        "ratio/max": float(ratio.max()),
        "ratio/log_abs_mean": float(log_ratio.abs().mean()),
    }


def _tensor_mean(rows: list[Tensor]) -> float:
    return float(torch.cat(rows).mean())


def _mean(values: Sequence[float]) -> float:
    """0 where there is nothing to average: `grading/failed` then says why."""
    return fmean(values) if values else 0.0
