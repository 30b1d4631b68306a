"""Weights by hand, and other trainers' own numbers (tests/trainer/test_losses.py says where they come from)."""

from typing import Any

import pytest
import torch

from trainer.aggregation import StepCounts, token_weights
from trainer.algorithm_config import Grpo
from trainer.batch import TrainSequence
from trainer.config import JobSpec
from trainer.losses.ratio_control import token_loss
from trainer.losses.token_loss import weighted_sum
from trainer.objective import Objective
from trainer.objective_config import Loss
from trainer.strict import SpecError

MASK = torch.tensor([[True, False, False], [True, True, True]])
MINIMAL: dict[str, Any] = {"model": {"path": "m"}, "dataset": {"path": "d"}, "rollout": {"max_new_tokens": 9}}


def weights(loss: Loss, mask: torch.Tensor, counts: StepCounts, constant: int = 4) -> list[list[float]]:
    return token_weights(mask, loss, counts, sum_constant=constant, dtype=torch.float64).tolist()


@pytest.mark.parametrize(
    ("aggregation", "first", "second"),
    [("sequence_mean_token_mean", 1 / 2, 1 / 6), ("token_mean", 1 / 4, 1 / 4), ("sequence_sum", 1 / 8, 1 / 8)],
)
def test_weights_by_hand(aggregation: str, first: float, second: float) -> None:
    """Completions of 1 and 3 tokens, constant 4."""
    found = weights(Loss.parse({"aggregation": aggregation}), MASK, StepCounts(sequences=2, tokens=4))
    assert found == [pytest.approx([first, 0, 0], rel=1e-15), pytest.approx([second] * 3, rel=1e-15)]


@pytest.mark.parametrize("aggregation", ["sequence_mean_token_mean", "token_mean", "sequence_sum"])
def test_a_micro_batch_is_weighted_as_part_of_the_whole(aggregation: str) -> None:
    """Its own counts would give the lone sequence twice to four times the weight."""
    loss, counts = Loss.parse({"aggregation": aggregation}), StepCounts(sequences=2, tokens=4)
    whole = weights(loss, MASK, counts)
    assert [*weights(loss, MASK[:1], counts), *weights(loss, MASK[1:], counts)] == whole
    assert weights(loss, MASK[:1], StepCounts(sequences=1, tokens=1))[0] != whole[0]


def test_a_sequence_without_trained_tokens_weighs_nothing() -> None:
    for aggregation in ("sequence_mean_token_mean", "token_mean", "sequence_sum"):
        found = weights(Loss.parse({"aggregation": aggregation}), torch.zeros((1, 2), dtype=torch.bool), StepCounts(2, 4))
        assert found == [[0.0, 0.0]]


def test_counts_are_of_trained_tokens() -> None:
    """Prompts do not count."""
    rows = [TrainSequence((1, 2, 3), (4,), (-1.0,), 1.0), TrainSequence((1,), (4, 5), (-1.0, -1.0), 1.0)]
    assert StepCounts.of(rows) == StepCounts(sequences=2, tokens=3)


@pytest.mark.parametrize(
    ("aggregation", "constant", "value", "gradient"),
    [
        # trl grpo eps .2 = verl vanilla seq-mean-token-mean
        ("sequence_mean_token_mean", 1, -0.218750, [0, -0.1, -0.175, 0, 0.0875, 0.0625, 0.05625]),
        # verl vanilla token-mean = trl dapo eps .2; one micro-batch, so trl bnpo's number too
        ("token_mean", 1, -0.114286, [0, -0.08571, -0.15, 0, 0.1, 0.07143, 0.06429]),
        # trl dr_grpo eps .2, max_completion_length 8
        ("sequence_sum", 8, -0.050000, [0, -0.0375, -0.06562, 0, 0.04375, 0.03125, 0.02812]),
        # verl vanilla seq-mean-token-sum-norm, padded width 4
        ("sequence_sum", 4, -0.100000, [0, -0.075, -0.13125, 0, 0.0875, 0.0625, 0.05625]),
        # verl vanilla seq-mean-token-sum
        ("sequence_sum", 1, -0.400000, [0, -0.3, -0.525, 0, 0.35, 0.25, 0.225]),
    ],
)
def test_golden_vectors(aggregation: str, constant: int, value: float, gradient: list[float]) -> None:
    old = torch.tensor([[-1.0, -0.5, -2.0, -1.0], [-0.7, -1.2, -0.3, -2.5]], dtype=torch.float64)
    ratio = torch.tensor([[1.5, 0.6, 1.05, 9.0], [0.7, 1.4, 1.0, 0.9]], dtype=torch.float64)
    mask = torch.tensor([[True, True, True, False], [True, True, True, True]])
    logprobs = (old + ratio.log()).requires_grad_()
    per_token = token_loss(Grpo(), logprobs, old, torch.tensor([1.0, -0.5], dtype=torch.float64), mask)
    settings = Loss.parse({"aggregation": aggregation})
    found = token_weights(mask, settings, StepCounts(2, 7), sum_constant=constant, dtype=torch.float64)
    loss = weighted_sum(per_token.loss_BT, found)
    loss.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert loss.item() == pytest.approx(value, abs=5.1e-7)  # printed to 6 and 5 digits
    assert logprobs.grad[mask].tolist() == pytest.approx(gradient, abs=5.1e-6)


def test_the_constant_is_the_longest_completion_unless_given() -> None:
    assert Objective.of(JobSpec.parse(MINIMAL | {"loss": {"aggregation": "sequence_sum"}})).sum_constant == 9
    assert Objective.of(JobSpec.parse(MINIMAL | {"loss": {"aggregation": "sequence_sum", "constant": 5}})).sum_constant == 5


def test_a_constant_that_nothing_uses_is_refused() -> None:
    with pytest.raises(SpecError, match="constant belongs to aggregation sequence_sum, not token_mean"):
        JobSpec.parse(MINIMAL | {"loss": {"aggregation": "token_mean", "constant": 5}})
