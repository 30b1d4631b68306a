"""What holds of every ratio control at any point: the gradient at r = 1, the bound of the multiplier, finite numbers, and that
gradient and value belong together where they are meant to.
"""

import math
from dataclasses import dataclass

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from tests.trainer.golden import loss_and_gradient
from trainer.algorithm_config import (
    Algorithm,
    Cispo,
    Dapo,
    Dppo,
    DrGrpo,
    Gmpo,
    Grpo,
    Gspo,
    GspoToken,
    Luspo,
    Mhpo,
    Reinforce,
    Sapo,
    Vespo,
)
from trainer.losses.multiplier import multiplier_bound, on_policy_multiplier
from trainer.losses.ratio_control import ABOUT, token_loss

PUBLISHED: list[Algorithm] = [
    Mhpo(),
    Grpo(),
    Dapo(),
    DrGrpo(),
    Gspo(),
    GspoToken(),
    Luspo(),
    Sapo(),
    Cispo(),
    Gmpo(),
    Dppo(),
    Vespo(),
    Reinforce(),
]
VARIANTS: list[Algorithm] = [
    Mhpo(c=0.8, k_pos=1.0, lambda_pos=2.0, k_neg=1.1, lambda_neg=1.5, normalize_on_policy=True),
    Mhpo(zero_region=True, epsilon_high=0.4),
    Grpo(dual_clip=3.0),
    Gspo(epsilon_low=0.3, epsilon_high=0.5),
    GspoToken(epsilon_low=0.3, epsilon_high=0.5),
    Luspo(epsilon_low=0.3, epsilon_high=0.5),
    Sapo(tau_pos=0.3, tau_neg=3.0),
    Cispo(ratio_min=0.8, ratio_max=1.2),
    Gmpo(epsilon_low=0.1, epsilon_high=1.0),
    Dppo(divergence="kl", ratio_max=3.0),
    Vespo(k_pos=0.5, lambda_pos=1.0, k_neg=0.0, lambda_neg=1.0),
]
ALL = PUBLISHED + VARIANTS
# Here a factor of the loss is constant to the gradient on purpose, so that it is not the derivative of the value.
STOP_GRADIENT = (Mhpo, GspoToken, Cispo, Dppo, Vespo)
DIFFERENTIABLE = [algorithm for algorithm in ALL if not isinstance(algorithm, STOP_GRADIENT)]


def name(algorithm: Algorithm) -> str:
    changed = {key: value for key, value in algorithm.model_dump(exclude_defaults=True).items() if key != "type"}
    return "-".join([algorithm.type, *(f"{key}={value}" for key, value in changed.items())])


@dataclass(frozen=True, slots=True)
class Case:
    """A batch in float64; the probabilities stay below 0.9, as those of real tokens below 1."""

    log_ratio_BT: Tensor
    old_BT: Tensor
    advantages_B: Tensor
    mask_BT: Tensor
    weights_BT: Tensor

    @property
    def now(self) -> Tensor:
        return self.old_BT + self.log_ratio_BT

    @property
    def lengths(self) -> Tensor:
        return self.mask_BT.sum(dim=1, keepdim=True).clamp(min=1)


@st.composite
def cases(draw: st.DrawFn, *, shift: float = 3.0) -> Case:
    """Up to 3 sequences of up to 4 tokens, some of them masked, a whole sequence too; |log ratio| up to `shift`."""
    rows, width = draw(st.integers(1, 3)), draw(st.integers(1, 4))

    def matrix(low: float, high: float) -> Tensor:
        numbers = st.lists(st.floats(low, high), min_size=rows * width, max_size=rows * width)
        return torch.tensor(draw(numbers), dtype=torch.float64).reshape(rows, width)

    flags = draw(st.lists(st.booleans(), min_size=rows * width, max_size=rows * width))
    mask_BT = torch.tensor(flags).reshape(rows, width)
    size = st.floats(0.05, 3.0)
    advantages = draw(st.lists(size | size.map(lambda a: -a), min_size=rows, max_size=rows))
    return Case(
        log_ratio_BT=matrix(-shift, shift),
        old_BT=matrix(-6.0, -shift - 0.1),
        advantages_B=torch.tensor(advantages, dtype=torch.float64),
        mask_BT=mask_BT,
        weights_BT=matrix(0.1, 1.0) * mask_BT,
    )


def gradient_of(algorithm: Algorithm, case: Case, weights_BT: Tensor) -> Tensor:
    return loss_and_gradient(algorithm, case.now, case.old_BT, case.advantages_B, case.mask_BT, weights_BT)[1]


def value_of(algorithm: Algorithm, case: Case, logprobs_BT: Tensor) -> float:
    loss = token_loss(algorithm, logprobs_BT, case.old_BT, case.advantages_B, case.mask_BT)
    return float((loss.loss_BT * case.weights_BT).sum())


@pytest.mark.parametrize("algorithm", ALL, ids=name)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(case=cases(shift=0.0))
def test_on_policy_gradient(algorithm: Algorithm, case: Case) -> None:
    """-A times the documented multiplier at each token, times the length for LUSPO; 0 where masked."""
    multiplier = torch.full_like(case.old_BT, on_policy_multiplier(algorithm))
    if isinstance(algorithm, Luspo):
        multiplier = multiplier * case.lengths
    expected_BT = -case.advantages_B[:, None] * multiplier * case.mask_BT
    found_BT = gradient_of(algorithm, case, case.mask_BT.double())
    assert torch.allclose(found_BT, expected_BT, rtol=1e-12, atol=0)


@pytest.mark.parametrize("algorithm", ALL, ids=name)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases(shift=5.0))
def test_multiplier_is_what_it_is_said_to_be_and_within_its_bound(algorithm: Algorithm, case: Case) -> None:
    """The gradient is -A x the multiplier that is logged, which is never above `multiplier_bound` nor below 0."""
    loss = token_loss(algorithm, case.now, case.old_BT, case.advantages_B, case.mask_BT)
    multiplier_BT = loss.telemetry_BT["multiplier"].masked_fill(~case.mask_BT, 0.0)
    found_BT = gradient_of(algorithm, case, case.mask_BT.double())
    assert torch.allclose(found_BT, -case.advantages_B[:, None] * multiplier_BT, rtol=1e-9, atol=1e-12)
    positive_B1 = case.advantages_B[:, None] > 0
    above, below = (torch.tensor(multiplier_bound(algorithm, positive=sign), dtype=torch.float64) for sign in (True, False))
    bound_BT = torch.where(positive_B1, above, below) * (case.lengths if isinstance(algorithm, Luspo) else 1)
    assert (multiplier_BT <= bound_BT * (1 + 1e-12)).all()
    assert (multiplier_BT >= 0).all()


@pytest.mark.parametrize("algorithm", DIFFERENTIABLE, ids=name)
@settings(max_examples=40, deadline=None, derandomize=True)
@given(case=cases())
def test_gradient_is_the_derivative_of_the_value(algorithm: Algorithm, case: Case) -> None:
    """By central differences, whatever each token weighs; points within a step of a kink of the clip are left out."""
    found_BT = gradient_of(algorithm, case, case.weights_BT)
    step = 1e-5
    for row, column in case.mask_BT.nonzero().tolist():
        values = []
        for change in (-step, 0.0, step):
            logprobs_BT = case.now.clone()
            logprobs_BT[row, column] += change
            values.append(value_of(algorithm, case, logprobs_BT))
        before, after = (values[1] - values[0]) / step, (values[2] - values[1]) / step
        assume(abs(after - before) < 1e-2 * max(1.0, abs(after)))
        assert found_BT[row, column].item() == pytest.approx((before + after) / 2, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("algorithm", [a for a in ALL if isinstance(a, STOP_GRADIENT)], ids=name)
def test_the_stop_gradient_ones_are_not(algorithm: Algorithm) -> None:
    """At r = 1.1 and 0.95, the first token weighing more: if this fails, the algorithm belongs among the others."""
    case = Case(
        log_ratio_BT=torch.tensor([[1.1, 0.95]], dtype=torch.float64).log(),
        old_BT=torch.tensor([[-2.0, -1.5]], dtype=torch.float64),
        advantages_B=torch.tensor([1.0], dtype=torch.float64),
        mask_BT=torch.tensor([[True, True]]),
        weights_BT=torch.tensor([[1.0, 0.4]], dtype=torch.float64),
    )
    if isinstance(algorithm, GspoToken):
        algorithm = GspoToken(epsilon_low=0.3, epsilon_high=0.5)
    found = gradient_of(algorithm, case, case.weights_BT)[0, 0].item()
    values = [value_of(algorithm, case, case.now + torch.tensor([[change, 0.0]])) for change in (-1e-5, 1e-5)]
    assert abs(found - (values[1] - values[0]) / 2e-5) > 1e-3


def test_docs_say_which_are_under_stop_gradient() -> None:
    assert {kind for kind, about in ABOUT.items() if about.stopped} == set(STOP_GRADIENT)
    assert [type(algorithm) for algorithm in PUBLISHED] == list(ABOUT)


@pytest.mark.parametrize("algorithm", ALL, ids=name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("advantage", [2.0, -2.0, 0.0])
def test_no_nan_up_to_50_nats(algorithm: Algorithm, dtype: torch.dtype, advantage: float) -> None:
    """Sequences of one and of three tokens that moved alike, every half nat to both sides."""
    log_ratio = torch.arange(-50, 50.5, 0.5, dtype=dtype)[:, None]
    for width in (1, 3):
        log_ratio_BT = log_ratio.expand(-1, width)
        old_BT = torch.where(log_ratio_BT > 0, -51.0, -1.0).to(dtype)
        mask_BT = torch.ones_like(log_ratio_BT, dtype=torch.bool)
        advantages_B = torch.full((len(log_ratio),), advantage, dtype=dtype)
        value, gradient = loss_and_gradient(algorithm, old_BT + log_ratio_BT, old_BT, advantages_B, mask_BT, mask_BT.to(dtype))
        assert math.isfinite(value)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("algorithm", ALL, ids=name)
def test_what_is_masked_may_be_anything(algorithm: Algorithm) -> None:
    old = torch.tensor([[-1.0, -0.5, -2.0], [-0.7, -1.2, -1.0]], dtype=torch.float64)
    now = old + torch.tensor([[0.1, -0.2, 0.3], [0.05, -0.1, 0.2]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    advantages = torch.tensor([1.0, -0.5], dtype=torch.float64)
    value, gradient = loss_and_gradient(algorithm, now, old, advantages, mask, mask.double())
    for rubbish in (math.nan, math.inf, -math.inf, 900.0):
        now_BT, old_BT = now.masked_fill(~mask, rubbish), old.masked_fill(~mask, -rubbish)
        found, changed = loss_and_gradient(algorithm, now_BT, old_BT, advantages, mask, mask.double())
        assert found == value
        assert torch.equal(changed, gradient)
    assert (gradient[~mask] == 0).all()


@pytest.mark.parametrize("algorithm", ALL, ids=name)
def test_a_sequence_without_trained_tokens_says_nothing(algorithm: Algorithm) -> None:
    old = torch.full((2, 2), -1.0, dtype=torch.float64)
    mask = torch.tensor([[False, False], [True, True]])
    advantages = torch.ones(2, dtype=torch.float64)
    both = loss_and_gradient(algorithm, old + 0.1, old, advantages, mask, mask.double())
    one = loss_and_gradient(algorithm, old[1:] + 0.1, old[1:], advantages[1:], mask[1:], mask[1:].double())
    assert both[0] == one[0]
    assert torch.equal(both[1][1:], one[1])
    assert (both[1][0] == 0).all()


def test_a_seen_maximum_reaches_the_bound_where_it_is_exact() -> None:
    """So that a bound is not idle: over |d| up to 5, one token, old probability 1e-3."""
    log_ratio = torch.linspace(-5, 5, 200_001, dtype=torch.float64)[:, None]
    old = torch.full_like(log_ratio, math.log(1e-3))
    mask = torch.ones_like(log_ratio, dtype=torch.bool)
    for algorithm in (Grpo(), Dapo(), Cispo(), Cispo(ratio_max=1.2), Gmpo(), Vespo(), Grpo(dual_clip=3.0), Reinforce()):
        for positive in (True, False):
            bound = multiplier_bound(algorithm, positive=positive)
            if math.isinf(bound):
                continue
            advantages = torch.full((len(log_ratio),), 1.0 if positive else -1.0, dtype=torch.float64)
            seen = token_loss(algorithm, old + log_ratio, old, advantages, mask).telemetry_BT["multiplier"].max().item()
            assert seen == pytest.approx(bound, rel=1e-4), (algorithm, positive)
    assert multiplier_bound(Grpo(), positive=False) == math.inf
