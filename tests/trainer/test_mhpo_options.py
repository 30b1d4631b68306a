"""MHPO's options beyond the paper, by hand: w(r) = exp(psi - zeta), w(1) = 0.265, in plain arithmetic.

r     w        w sech^2(log r / 1.5)
0.7   0.140988 0.133307
0.9   0.224992 0.223886
1.1   0.302023 0.300807
1.3   0.364561 0.353632
"""

import pytest
import torch
from pydantic import ValidationError

from tests.trainer.golden import TOKEN_MEAN, golden, one_token
from trainer.algorithm_config import Mhpo
from trainer.config import JobSpec
from trainer.losses.ratio_control import token_loss

ON_POLICY = 0.2650622127026223
WEIGHT = {
    0.7: (0.14098758564374766, 0.13330714939673),
    0.9: (0.224992226032016, 0.2238858214710159),
    1.1: (0.3020233458920913, 0.30080724742125164),
    1.3: (0.36456127498687596, 0.35363172219925143),
}


@pytest.mark.parametrize("ratio", WEIGHT)
@pytest.mark.parametrize("advantage", [1.0, -0.5])
def test_both_off(ratio: float, advantage: float) -> None:
    weight, multiplier = WEIGHT[ratio]
    assert one_token(Mhpo(), ratio, advantage) == pytest.approx((-advantage * weight, -advantage * multiplier), rel=1e-12)


@pytest.mark.parametrize("ratio", WEIGHT)
@pytest.mark.parametrize("advantage", [1.0, -0.5])
def test_normalize_on_policy(ratio: float, advantage: float) -> None:
    weight, multiplier = WEIGHT[ratio]
    expected = (-advantage * weight / ON_POLICY, -advantage * multiplier / ON_POLICY)
    assert one_token(Mhpo(normalize_on_policy=True), ratio, advantage) == pytest.approx(expected, rel=1e-12)


def test_normalized_on_policy_gradient_is_reinforces() -> None:
    for advantage in (1.0, -0.5):
        found = one_token(Mhpo(normalize_on_policy=True), 1.0, advantage)
        assert found == pytest.approx((-advantage, -advantage), rel=1e-14)
        other = Mhpo(normalize_on_policy=True, c=0.7, k_pos=3.0, lambda_pos=2.0, k_neg=1.2, lambda_neg=0.5)
        assert one_token(other, 1.0, advantage) == pytest.approx((-advantage, -advantage), rel=1e-14)


@pytest.mark.parametrize(
    ("ratio", "advantage", "kept"),
    [
        (1.3, 1.0, False),  # above 1.2, and A asks for more
        (1.3, -0.5, True),  # A asks to come back
        (0.7, -0.5, False),  # below 0.8, and A asks for less
        (0.7, 1.0, True),
        (1.1, 1.0, True),
        (0.9, -0.5, True),
    ],
)
@pytest.mark.parametrize("normalize", [False, True])
def test_zero_region(ratio: float, advantage: float, kept: bool, normalize: bool) -> None:
    """The value stays what it is without the option; only the gradient goes."""
    weight, multiplier = (part / (ON_POLICY if normalize else 1.0) for part in WEIGHT[ratio])
    found = one_token(Mhpo(zero_region=True, normalize_on_policy=normalize), ratio, advantage)
    assert found == pytest.approx((-advantage * weight, -advantage * multiplier if kept else 0.0), rel=1e-12)


def test_zero_region_with_bounds_of_its_own() -> None:
    wide = Mhpo(zero_region=True, epsilon_low=0.35, epsilon_high=0.35)
    assert one_token(wide, 1.3, 1.0)[1] == pytest.approx(-WEIGHT[1.3][1], rel=1e-12)
    assert one_token(wide, 0.7, -0.5)[1] == pytest.approx(0.5 * WEIGHT[0.7][1], rel=1e-12)
    narrow = Mhpo(zero_region=True, epsilon_low=0.05, epsilon_high=0.05)
    assert one_token(narrow, 1.1, 1.0)[1] == 0.0
    assert one_token(narrow, 0.9, -0.5)[1] == 0.0
    one_side = Mhpo(zero_region=True, epsilon_high=0.35)
    assert one_token(one_side, 1.3, 1.0)[1] != 0.0
    assert one_token(one_side, 0.7, -0.5)[1] == 0.0, "the other bound stays at 0.2"


def test_zero_region_is_grpos() -> None:
    """On the golden input GRPO has no gradient at the first token (r = 1.5, A > 0) and the fourth (r = 0.7, A < 0)."""
    loss, gradient = golden(Mhpo(zero_region=True), TOKEN_MEAN)
    assert loss == pytest.approx(-0.040966, abs=5.1e-7)
    assert gradient == pytest.approx([0, -0.01293, -0.04053, 0, 0.0265, 0.01893, 0.01599], abs=5.1e-6)


@pytest.mark.parametrize(
    ("since_rollout", "since_start", "advantage", "kept"),
    [
        (1.3, 1.1, 1.0, True),  # far from the rollout before this batch's updates began: the lag's, not theirs
        (0.7, 0.9, -0.5, True),
        (1.1, 1.3, 1.0, False),  # they have moved it
        (0.9, 0.7, -0.5, False),
        (1.1, 1.3, -0.5, True),  # and A asks to come back
    ],
)
def test_batch_region(since_rollout: float, since_start: float, advantage: float, kept: bool) -> None:
    """Weight and value go by the ratio to the rollout's weights, the region by that to the weights before the first update."""
    now = torch.zeros(1, 1, dtype=torch.float64, requires_grad=True)
    old, started = (-torch.tensor([[ratio]], dtype=torch.float64).log() for ratio in (since_rollout, since_start))
    config = Mhpo(zero_region=True, zero_region_since="batch")
    advantages = torch.tensor([advantage], dtype=torch.float64)
    loss = token_loss(config, now, old, advantages, torch.ones(1, 1, dtype=torch.bool), started).loss_BT.sum()
    loss.backward()  # type: ignore[no-untyped-call]
    weight, multiplier = WEIGHT[since_rollout]
    assert now.grad is not None
    assert loss.item() == pytest.approx(-advantage * weight, rel=1e-12)
    assert now.grad.item() == pytest.approx(-advantage * multiplier if kept else 0.0, rel=1e-12)


def test_batch_region_is_the_zero_region_where_the_batch_begins_with_the_weights_that_sampled() -> None:
    for ratio in WEIGHT:
        for advantage in (1.0, -0.5):
            batch = one_token(Mhpo(zero_region=True, zero_region_since="batch"), ratio, advantage)
            assert batch == one_token(Mhpo(zero_region=True), ratio, advantage)


def test_batch_without_the_region_is_refused() -> None:
    with pytest.raises(ValidationError, match="zero_region_since = batch does nothing without zero_region = true"):
        Mhpo(zero_region_since="batch")


def test_zero_region_far_out_has_no_nan() -> None:
    """exp(800) is infinite even in float64, and above every bound."""
    value, gradient = one_token(Mhpo(zero_region=True), 1e300, 1.0, old=-700.0)
    assert torch.isfinite(torch.tensor([value, gradient])).all()
    assert gradient == 0.0


@pytest.mark.parametrize("bound", ["epsilon_low", "epsilon_high"])
def test_bounds_without_the_region_are_refused(bound: str) -> None:
    with pytest.raises(ValidationError, match=f"{bound} = 0.2 does nothing without zero_region = true"):
        Mhpo.model_validate({bound: 0.2})


def test_a_spec_with_the_options_survives_the_run_folder() -> None:
    for algorithm in (
        {"type": "mhpo"},
        {"type": "mhpo", "zero_region": True},
        {"type": "mhpo", "zero_region": True, "epsilon_low": 0.3},
        {"type": "mhpo", "zero_region": True, "zero_region_since": "batch"},
    ):
        spec = JobSpec.parse({"model": {"path": "m"}, "dataset": {"path": "d"}, "algorithm": algorithm})
        assert JobSpec.model_validate_json(spec.model_dump_json()) == spec
