"""KL estimators against verl 0.9.1's own numbers, and the terms that a token's loss is made of."""

import math

import pytest
import torch
from torch import Tensor

from trainer.algorithm_config import Grpo
from trainer.batch import Batch
from trainer.kl import kl_estimate, reward_penalty
from trainer.objective import Objective, token_terms
from trainer.objective_config import KlEstimator, KlInLoss, KlInReward, Loss, TruncateCorrection
from trainer.policy import TokenDistribution

REF = torch.tensor([-1.0, -0.5, -2.0, -0.7, -1.2, -0.3, -2.5], dtype=torch.float64)
RATIO = torch.tensor([1.5, 0.6, 1.05, 0.7, 1.4, 1.0, 0.9], dtype=torch.float64)


@pytest.mark.parametrize(
    ("estimator", "total", "gradient"),
    [
        ("k1", -0.182134, [1, 1, 1, 1, 1, 1, 1]),
        ("k2", 0.339628, [0.40547, -0.51083, 0.04879, -0.35667, 0.33647, 0, -0.10536]),
        ("k3", 0.357549, [0.33333, -0.66667, 0.04762, -0.42857, 0.28571, 0, -0.11111]),
    ],
)
def test_golden_vectors(estimator: KlEstimator, total: float, gradient: list[float]) -> None:
    """verl kl_penalty on the golden input; the gradient is that of the estimate itself (verl's k1+ and k3+ take k2's)."""
    logprobs = (REF + RATIO.log()).requires_grad_()
    value = kl_estimate(estimator, logprobs, REF).sum()
    value.backward()  # type: ignore[no-untyped-call]
    assert logprobs.grad is not None
    assert value.item() == pytest.approx(total, abs=5.1e-7)
    assert logprobs.grad.tolist() == pytest.approx(gradient, abs=5.1e-6)


def test_trap_9_nothing_is_clamped() -> None:
    """x = -5: k3 = e^5 - 1 - 5 = 142.4. verl and Unsloth cut it to 10."""
    value = kl_estimate("k3", torch.tensor(-6.0, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)).item()
    assert value == pytest.approx(math.exp(5) - 6, rel=1e-12)
    assert kl_estimate("k1", torch.tensor(-31.0), torch.tensor(-1.0)).item() == -30.0


def test_the_penalty_is_the_sum_over_tokens() -> None:
    ours, base = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert reward_penalty(KlInReward(coefficient=0.1), ours, base) == pytest.approx(0.1 * (0.5 - 1.0))
    assert reward_penalty(KlInReward(coefficient=0.1, estimator="k2"), ours, base) == pytest.approx(0.1 * (0.125 + 0.5))


def batch_of(mask: Tensor, sampler: Tensor, advantages: Tensor) -> Batch:
    """A batch of which only completions are looked at."""
    nothing = torch.zeros(0, dtype=torch.long)
    return Batch(nothing, nothing, [], nothing, nothing, mask, sampler, advantages)


def test_a_token_by_hand() -> None:
    """GRPO at ratio 1.5 and A = -1: loss 1.5. Sampler: half as likely, so weight 2, cut to 1.6. KL k3 of x = ln 2:
    1/2 - 1 + ln 2. Entropy 3. The weight touches neither KL nor entropy."""
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    logprobs = (old + math.log(1.5)).requires_grad_()
    objective = Objective(
        Grpo(epsilon_high=1.0),
        loss=Loss(entropy_coefficient=0.01),
        correction=TruncateCorrection(at_most=1.6),
        kl=KlInLoss(coefficient=0.1),
    )
    batch = batch_of(torch.tensor([[True]]), old - math.log(2), torch.tensor([-1.0]))
    now = TokenDistribution(logprobs, torch.tensor([[3.0]], dtype=torch.float64))
    terms = token_terms(objective, batch, now, old, old, logprobs.detach() - math.log(2))
    terms.loss_BT.sum().backward()  # type: ignore[no-untyped-call]
    kl = 0.5 - 1 + math.log(2)
    assert terms.loss_BT.item() == pytest.approx(1.6 * 1.5 + 0.1 * kl - 0.01 * 3, rel=1e-12)
    assert logprobs.grad is not None
    assert logprobs.grad.item() == pytest.approx(1.6 * 1.5 + 0.1 * (1 - 0.5), rel=1e-12)
    assert terms.kl_BT is not None
    assert terms.kl_BT.item() == pytest.approx(kl, rel=1e-12)


def test_trap_9_trl_multiplies_the_kl_by_the_ratio() -> None:
    """Token mean of GRPO clip 0.2 plus 0.1 k3 of the golden input: -0.114286 + 0.1 x 0.357549 / 7. TRL: -0.109579."""
    old, logprobs = REF[None], (REF + RATIO.log())[None].requires_grad_()
    # The golden input's rows have advantages 1 and -0.5; here as two batches, of 3 tokens and of 4.
    objective = Objective(Grpo(), kl=KlInLoss(coefficient=0.1))
    total = torch.zeros((), dtype=torch.float64)
    for span, advantage in ((slice(0, 3), 1.0), (slice(3, 7), -0.5)):
        part = old[:, span]
        batch = batch_of(torch.ones_like(part, dtype=torch.bool), part, torch.tensor([advantage], dtype=torch.float64))
        now = TokenDistribution(logprobs[:, span], torch.zeros_like(part))
        total = total + token_terms(objective, batch, now, part, part, part).loss_BT.sum() / 7
    total.backward()  # type: ignore[no-untyped-call]
    assert total.item() == pytest.approx(-0.8 / 7 + 0.1 * 0.357549 / 7, abs=1e-7)
    assert logprobs.grad is not None
    assert logprobs.grad[0, 0].item() == pytest.approx(0.1 * (1 / 3) / 7, rel=1e-9), "TRL: 0.00869"


def test_a_missing_reference_is_an_error() -> None:
    old = torch.tensor([[-1.0]])
    batch = batch_of(torch.tensor([[True]]), old, torch.tensor([1.0]))
    with pytest.raises(ValueError, match="needs the reference"):
        token_terms(Objective(Grpo(), kl=KlInLoss(coefficient=1.0)), batch, TokenDistribution(old, old), old, old, None)
