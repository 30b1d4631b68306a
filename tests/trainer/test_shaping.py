"""What advantages are taken of: the graders' rewards, less the penalties that the spec asks for."""

from pathlib import Path
from typing import Any

import pytest
import torch

from trainer.config import JobSpec
from trainer.policy import Policy, load_reference
from trainer.shaping import shape
from trainer.types import Completion, Problem, RolloutGroup, Score


def spec(tiny_model: Path, **changes: Any) -> JobSpec:
    document = {"model": {"path": str(tiny_model)}, "dataset": {"path": "d"}, "advantages": {"type": "group_mean"}}
    return JobSpec.parse(document | {"rollout": {"max_new_tokens": 4}} | changes)


def group(rewards: list[float], completions: list[tuple[int, ...]], errors: list[bool]) -> RolloutGroup:
    """Each token was sampled with a log-probability of -2."""
    return RolloutGroup(
        Problem("p", 0, "", ""),
        (5, 6),
        tuple(Completion(ids, "", (-2.0,) * len(ids), "stop") for ids in completions),
        tuple(Score(r, {}, {"math": "failed"} if bad else {}) for r, bad in zip(rewards, errors, strict=True)),
        (),
    )


def test_soft_punishment_by_hand(tiny_model: Path) -> None:
    """Limit 4, buffer 2, penalty 0.6: lengths 2, 3, 4 cost 0, 0.3, 0.6. Rewards 1, 1, 0 become 1, 0.7, -0.6."""
    job = spec(tiny_model, overlong={"type": "soft_punishment", "buffer": 2, "penalty": 0.6})
    given = group([1.0, 1.0, 0.0], [(7, 8), (7, 8, 9), (7, 8, 9, 10)], [False] * 3)
    shaped = shape([given], job, None)
    mean = 1.1 / 3
    assert shaped.groups[0].advantages == pytest.approx((1 - mean, 0.7 - mean, -0.6 - mean))
    assert shaped.groups[0].scores == given.scores, "the rewards that are shown stay the graders'"
    assert shaped.metrics == pytest.approx({"overlong/penalty_mean": 0.3, "overlong/punished": 2 / 3})


def test_kl_in_the_reward_is_the_sum_over_tokens(tiny_model: Path) -> None:
    """Against the base model's own log-probabilities, a token at a time. The completion that failed counts nowhere."""
    job = spec(tiny_model, kl={"type": "reward", "coefficient": 0.5})
    reference = load_reference(job, torch.device("cpu"))
    assert reference is not None
    assert not any(p.requires_grad for p in reference.model.parameters())
    rows: list[tuple[int, ...]] = [(7, 8, 9), (10,), (11, 12)]
    shaped = shape([group([1.0, 0.0, 9.0], rows, [False, False, True])], job, reference)
    base = [base_logprobs(reference, (5, 6), ids) for ids in rows]
    penalties = [0.5 * sum(-2.0 - logprob for logprob in row) for row in base]
    rewards = [1.0 - penalties[0], 0.0 - penalties[1]]
    mean = sum(rewards) / 2
    assert shaped.groups[0].advantages == pytest.approx((rewards[0] - mean, rewards[1] - mean, 0.0), abs=1e-5)
    assert shaped.metrics["kl/penalty_mean"] == pytest.approx(sum(penalties) / 3, abs=1e-5)


def base_logprobs(policy: Policy, prompt: tuple[int, ...], completion: tuple[int, ...]) -> list[float]:
    ids = torch.tensor([prompt + completion])
    with torch.no_grad():
        logprobs = policy.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    return [float(logprobs[len(prompt) - 1 + i, token]) for i, token in enumerate(completion)]


def test_nothing_is_subtracted_unless_asked_for(tiny_model: Path) -> None:
    shaped = shape([group([1.0, 0.0], [(7,), (8, 9, 10, 11)], [False] * 2)], spec(tiny_model), None)
    assert shaped.groups[0].advantages == (0.5, -0.5)
    assert shaped.metrics == {}
