"""Where a loss of the same name differs between trainers: what ours does, one trap a test."""

import math
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.golden import (
    ADVANTAGES,
    MASK,
    OLD,
    RATIO,
    SEQUENCE_MEAN,
    TOKEN_MEAN,
    golden,
    loss_and_gradient,
    one_token,
    sequence_sum,
    weighted,
    weights_of,
)
from trainer.algorithm_config import Algorithm, Cispo, Dapo, DrGrpo, Gmpo, Grpo, Gspo, GspoToken, Luspo, Mhpo, Sapo, Vespo
from trainer.config import JobSpec
from trainer.losses.ratio_control import token_loss
from trainer.objective_config import Loss
from trainer.strict import SpecError


def test_cispo_does_not_take_trls_default_for_a_cap() -> None:
    """TRL's epsilon_high of 0.2 as an absolute cap weighs an on-policy token 0.2. Ours weighs it 1, and refuses such a cap."""
    assert one_token(Cispo(), 1.0, 1.0)[1] == pytest.approx(-1.0, rel=1e-15)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        Cispo(ratio_max=0.2)
    loss, gradient = golden(Cispo.model_construct(ratio_max=0.2), TOKEN_MEAN)  # the vector "trl cispo DEFAULT"
    assert loss == pytest.approx(0.03268, abs=5.1e-7)
    assert gradient == pytest.approx([-0.02857] * 3 + [0.01429] * 4, abs=5.1e-6)


def test_cispo_bounds_are_ratios_not_distances_from_1() -> None:
    assert one_token(Cispo(), 5.5, 1.0)[1] == pytest.approx(-5.0, rel=1e-12)  # not 1 + 5
    assert one_token(Cispo(), 1e-3, 1.0)[1] == pytest.approx(-1e-3, rel=1e-12)  # no floor
    assert one_token(Cispo(ratio_min=0.8), 0.1, 1.0)[1] == pytest.approx(-0.8, rel=1e-12)


@pytest.mark.parametrize("algorithm", [Gmpo(), Gspo(), GspoToken(), Luspo(), Vespo(), Grpo(), Mhpo()], ids=lambda a: a.type)
@pytest.mark.parametrize("aggregation", [SEQUENCE_MEAN, TOKEN_MEAN, sequence_sum(8)], ids=lambda a: a.aggregation)
def test_micro_batches_add_up(algorithm: Algorithm, aggregation: Loss) -> None:
    """verl's geo_mean takes the mean of each micro-batch: its gradient changes with the cut."""
    whole, gradient_BT = weighted(algorithm, weights_of(aggregation))
    parts = [
        loss_and_gradient(
            algorithm,
            (OLD + RATIO.log())[row : row + 1],
            OLD[row : row + 1],
            ADVANTAGES[row : row + 1],
            MASK[row : row + 1],
            weights_of(aggregation)[row : row + 1],
        )
        for row in range(2)
    ]
    assert sum(value for value, _ in parts) == pytest.approx(whole, rel=1e-14)
    # Not to the bit: a processor's vectors and its rest of a row round an exponential apart.
    torch.testing.assert_close(torch.cat([gradient for _, gradient in parts]), gradient_BT, rtol=1e-13, atol=0)


@pytest.mark.parametrize("algorithm", [Grpo(), Dapo(), DrGrpo()], ids=lambda a: a.type)
def test_dual_clip_is_off_as_in_trl(algorithm: Algorithm) -> None:
    """verl's vanilla has it on at 3: loss 3, no gradient. They differ for A < 0 and r > 3 only."""
    assert one_token(algorithm, 4.0, -1.0) == pytest.approx((4.0, 4.0), rel=1e-12)


def test_dual_clip_is_verls_and_trls_delta() -> None:
    algorithm = Grpo(dual_clip=3.0)
    assert one_token(algorithm, 4.0, -1.0) == (3.0, 0.0)
    assert one_token(algorithm, 2.9, -1.0) == pytest.approx((2.9, 2.9), rel=1e-12)
    assert one_token(algorithm, 4.0, 1.0) == pytest.approx((-1.2, 0.0), rel=1e-12)
    assert one_token(algorithm, 0.5, 1.0) == pytest.approx((-0.5, -0.5), rel=1e-12)
    assert one_token(algorithm, 0.5, -1.0) == pytest.approx((0.8, 0.0), rel=1e-12)


@pytest.mark.parametrize("dual_clip", [1.2, 1.1])
def test_dual_clip_where_trl_and_verl_would_differ_is_refused(dual_clip: float) -> None:
    """At or under 1 + epsilon_high TRL's delta narrows the clip of A > 0 too, verl's does not."""
    with pytest.raises(ValidationError, match="must be above"):
        Grpo(dual_clip=dual_clip)


@pytest.mark.parametrize("algorithm", [Grpo(), Gspo(), Gmpo(), GspoToken()], ids=lambda a: a.type)
def test_the_log_ratio_is_not_clamped_as_in_trl(algorithm: Algorithm) -> None:
    """verl cuts it to 20 (gspo: 10), from where on there is no gradient. A < 0, a token 25 nats likelier."""
    value, gradient = one_token(algorithm, math.exp(25), -1.0, old=-26.0)
    assert value == pytest.approx(math.exp(25), rel=1e-9)
    assert gradient == pytest.approx(math.exp(25), rel=1e-9)


@pytest.mark.parametrize("aggregation", [SEQUENCE_MEAN, TOKEN_MEAN, sequence_sum(8)], ids=lambda a: a.aggregation)
def test_gspo_and_gspo_token_agree_where_the_tokens_of_a_sequence_weigh_the_same(aggregation: Loss) -> None:
    wide: dict[str, Any] = {"epsilon_low": 0.2, "epsilon_high": 0.2}
    value, gradient = golden(Gspo(**wide), aggregation)
    of_token, gradient_of_token = golden(GspoToken(**wide), aggregation)
    assert of_token == pytest.approx(value, rel=1e-14)
    assert gradient_of_token == pytest.approx(gradient, rel=1e-12)


def test_gspo_and_gspo_token_differ_where_a_single_token_weighs_less() -> None:
    """As under a token-level correction. First sequence, s = 0.945^(1/3), weights 1, 1, 0: gspo spreads 2 s over 3 tokens."""
    weights_BT = torch.zeros_like(RATIO)
    weights_BT[0, :2] = 1.0
    wide: dict[str, Any] = {"epsilon_low": 0.2, "epsilon_high": 0.2}
    ratio = 0.945 ** (1 / 3)
    _, spread = weighted(Gspo(**wide), weights_BT)
    _, own = weighted(GspoToken(**wide), weights_BT)
    assert spread[0].tolist() == pytest.approx([-2 * ratio / 3] * 3 + [0], rel=1e-12)
    assert own[0].tolist() == pytest.approx([-ratio, -ratio, 0, 0], rel=1e-12)


def test_sapo_logs_the_gate_of_no_advantage_with_tau_neg() -> None:
    """As TRL and verl; EasyR1 takes tau_pos. r = 2: 4 sigmoid(tau)(1 - sigmoid(tau)) = 1 / cosh^2(tau / 2)."""
    old_BT = torch.tensor([[-2.0]], dtype=torch.float64)
    advantages_B = torch.zeros(1, dtype=torch.float64)
    loss = token_loss(Sapo(), old_BT + math.log(2), old_BT, advantages_B, torch.tensor([[True]]))
    assert loss.telemetry_BT["gate"].item() == pytest.approx(1 / math.cosh(1.05 / 2) ** 2, rel=1e-12)
    assert loss.loss_BT.item() == 0.0


def test_sapo_is_aggregated_as_the_spec_says() -> None:
    """verl aggregates it by sequence whatever its setting; under the token mean the third token weighs 1/7, not 1/6."""
    _, by_sequence = golden(Sapo(), SEQUENCE_MEAN)
    _, by_token = golden(Sapo(), TOKEN_MEAN)
    assert by_token[2] == pytest.approx(by_sequence[2] * 6 / 7, rel=1e-12)


def test_dapo_raises_the_upper_bound_without_being_told() -> None:
    """TRL's loss_type dapo leaves it at 0.2."""
    assert one_token(Dapo(), 1.25, 1.0)[1] == pytest.approx(-1.25, rel=1e-12)
    assert one_token(Dapo(), 1.29, 1.0)[1] == 0.0
    assert one_token(Grpo(), 1.25, 1.0)[1] == 0.0


def test_luspo_counts_the_length_once() -> None:
    """TRL sums over tokens instead; the sum of a loss that has the length in it would count it twice."""
    spec = {"model": {"path": "m"}, "dataset": {"path": "d"}, "algorithm": {"type": "luspo"}}
    assert JobSpec.parse(spec).loss.aggregation == "sequence_mean_token_mean"
    for aggregation in ("token_mean", "sequence_sum"):
        with pytest.raises(SpecError, match="luspo has the length in its loss"):
            JobSpec.parse(spec | {"loss": {"aggregation": aggregation}})


def test_vespo_takes_no_advantage_as_positive_and_cuts_a_runaway_token() -> None:
    """phi = w^2 exp(3 (1 - w)) at w = 0.5; and of 30 nats down, 20 count, so that w = 1e-8 (the outer cut)."""
    old_BT = torch.tensor([[-2.0]], dtype=torch.float64)
    mask_BT = torch.tensor([[True]])
    nothing = token_loss(Vespo(), old_BT + math.log(0.5), old_BT, torch.zeros(1, dtype=torch.float64), mask_BT)
    assert nothing.telemetry_BT["phi"].item() == pytest.approx(0.25 * math.exp(1.5), rel=1e-12)
    gone = token_loss(Vespo(), old_BT - 30, old_BT, torch.ones(1, dtype=torch.float64), mask_BT)
    assert gone.telemetry_BT["phi"].item() == pytest.approx(1e-16 * math.exp(3 * (1 - 1e-8)), rel=1e-9)
    both = torch.tensor([[-2.0, -2.0]], dtype=torch.float64)
    moved = both + torch.tensor([[-30.0, 20.0]], dtype=torch.float64)  # the inner cut: -20 and +20 leave w = 1
    kept = token_loss(Vespo(), moved, both, torch.ones(1, dtype=torch.float64), torch.tensor([[True, True]]))
    assert kept.telemetry_BT["phi"][0].tolist() == pytest.approx([1.0, 1.0], rel=1e-12)
