"""Values and per-token gradients against numbers that were not made with this code.

mhpo_golden.json: mpmath at 50 digits. The golden vectors: verl 0.9.1's and TRL 1.16.0's own functions in float64, and
MHPO by hand.
"""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.trainer.golden import MASK, SEQUENCE_MEAN, TOKEN_MEAN, golden, loss_and_gradient, sequence_sum, weighted
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
from trainer.losses.dppo import bernoulli_kl
from trainer.losses.gmpo import gmpo_loss
from trainer.losses.gspo import gspo_loss, gspo_token_loss
from trainer.losses.mhpo import modulate, on_policy_survival
from trainer.losses.sequence_ratio import mean_over_tokens
from trainer.losses.token_loss import weighted_sum
from trainer.losses.vespo import vespo_loss
from trainer.objective_config import Loss

GOLDEN = json.loads((Path(__file__).parent / "mhpo_golden.json").read_text())["settings"]

CLIPPED = [0, -0.6, -1.05, 0, 0.7, 0.5, 0.45]  # times 1 / 7 or the like: the gradient of the clipped surrogate
GSPO = [-0.16355] * 3 + [0.06057] * 4
ROWS: list[tuple[str, Algorithm, Loss, float, list[float]]] = [
    ("verl vanilla token-mean", Grpo(), TOKEN_MEAN, -0.114286, [0, -0.08571, -0.15, 0, 0.1, 0.07143, 0.06429]),
    ("verl vanilla seq-mean-token-sum", Grpo(), sequence_sum(1), -0.4, [0, -0.3, -0.525, 0, 0.35, 0.25, 0.225]),
    ("verl vanilla seq-mean-token-mean", Grpo(), SEQUENCE_MEAN, -0.21875, [0, -0.1, -0.175, 0, 0.0875, 0.0625, 0.05625]),
    (
        "verl vanilla seq-mean-token-sum-norm",
        Grpo(),
        sequence_sum(4),
        -0.1,
        [0, -0.075, -0.13125, 0, 0.0875, 0.0625, 0.05625],
    ),
    ("verl vanilla DAPO hi=.28 token-mean", Dapo(), TOKEN_MEAN, -0.125714, [0, -0.08571, -0.15, 0, 0.1, 0.07143, 0.06429]),
    ("verl gspo eps .2", GspoToken(epsilon_low=0.2, epsilon_high=0.2), SEQUENCE_MEAN, -0.248386, GSPO),
    ("verl gspo 3e-4/4e-4", GspoToken(), SEQUENCE_MEAN, -0.240735, [-0.16355] * 3 + [0] * 4),
    (
        "verl sapo",
        Sapo(),
        SEQUENCE_MEAN,
        -0.548191,
        [-0.235, -0.0961, -0.17489, 0.04268, 0.08375, 0.0625, 0.0561],
    ),
    (
        "verl cispo .2/.2 token-mean",
        Cispo(ratio_min=0.8, ratio_max=1.2),
        TOKEN_MEAN,
        0.186811,
        [-0.17143, -0.11429, -0.15, 0.05714, 0.08571, 0.07143, 0.06429],
    ),
    (
        "verl geo_mean .2/.2",
        Gmpo(epsilon_low=0.2, epsilon_high=0.2),
        SEQUENCE_MEAN,
        -0.206228,
        [0, -0.15273, -0.15273, 0, 0.06299, 0.06299, 0.06299],
    ),
    ("verl geo_mean .4/.4", Gmpo(), SEQUENCE_MEAN, -0.247493, [0, -0.16326, -0.16326, *[0.06057] * 4]),
    (
        "verl dppo_tv .2 c=20",
        Dppo(delta_low=0.2, delta_high=0.2),
        TOKEN_MEAN,
        0.178621,
        [-0.21429, -0.08571, -0.15, 0.05, 0.1, 0.07143, 0.06429],
    ),
    (
        "verl dppo_kl .05 c=20",
        Dppo(divergence="kl"),
        TOKEN_MEAN,
        0.051221,
        [0, -0.08571, -0.15, 0.05, 0.1, 0.07143, 0.06429],
    ),
    ("verl gpg", Reinforce(), TOKEN_MEAN, 0.163398, [-0.14286] * 3 + [0.07143] * 4),
    ("trl grpo eps .2", Grpo(), SEQUENCE_MEAN, -0.21875, [0, -0.1, -0.175, 0, 0.0875, 0.0625, 0.05625]),
    ("trl dr_grpo eps .2", DrGrpo(), sequence_sum(8), -0.05, [0, -0.0375, -0.06562, 0, 0.04375, 0.03125, 0.02812]),
    ("trl dapo eps .2", Dapo(epsilon_high=0.2), TOKEN_MEAN, -0.114286, [0, -0.08571, -0.15, 0, 0.1, 0.07143, 0.06429]),
    ("trl dapo epsh .28", Dapo(), TOKEN_MEAN, -0.125714, [0, -0.08571, -0.15, 0, 0.1, 0.07143, 0.06429]),
    ("trl grpo delta=1.3", Grpo(dual_clip=1.3), SEQUENCE_MEAN, -0.225, [0, -0.1, -0.175, 0, 0, 0.0625, 0.05625]),
    ("trl GSPO eps .2", Gspo(epsilon_low=0.2, epsilon_high=0.2), SEQUENCE_MEAN, -0.248386, GSPO),
    ("trl GSPO 3e-4/4e-4", Gspo(), SEQUENCE_MEAN, -0.240735, [-0.16355] * 3 + [0] * 4),
    (
        "trl luspo+sequence eps .2",
        Luspo(epsilon_low=0.2, epsilon_high=0.2),
        SEQUENCE_MEAN,
        -0.502883,
        [-0.49066] * 3 + [0.24227] * 4,
    ),
    (
        "trl cispo epsh=5.0",
        Cispo(),
        TOKEN_MEAN,
        0.178621,
        [-0.21429, -0.08571, -0.15, 0.05, 0.1, 0.07143, 0.06429],
    ),
    ("trl sapo", Sapo(), SEQUENCE_MEAN, -0.548191, [-0.235, -0.0961, -0.17489, 0.04268, 0.08375, 0.0625, 0.0561]),
    ("trl vespo", Vespo(), TOKEN_MEAN, 0.235679, [-0.15046] * 3 + [0.06205] * 4),
    ("trl GMPO eps .4", Gmpo(), SEQUENCE_MEAN, -0.247493, [0, -0.16326, -0.16326, *[0.06057] * 4]),
    ("mhpo token-mean", Mhpo(), TOKEN_MEAN, -0.040966, [-0.05475, -0.01293, -0.04053, 0.00952, 0.0265, 0.01893, 0.01599]),
    ("mhpo seq-mean", Mhpo(), SEQUENCE_MEAN, -0.069066, [-0.06387, -0.01508, -0.04728, 0.00833, 0.02319, 0.01657, 0.01399]),
]


@pytest.mark.parametrize(("algorithm", "aggregation", "value", "gradient"), [row[1:] for row in ROWS], ids=[r[0] for r in ROWS])
def test_golden_vectors(algorithm: Algorithm, aggregation: Loss, value: float, gradient: list[float]) -> None:
    loss, found = golden(algorithm, aggregation)
    assert loss == pytest.approx(value, abs=5.1e-7)  # the vectors are printed to 6 and 5 digits
    assert found == pytest.approx(gradient, abs=5.1e-6)


def test_golden_vector_of_verl_vanilla_token_sum() -> None:
    loss, gradient = weighted(Grpo(), MASK.double())
    assert loss == pytest.approx(-0.8, abs=1e-12)
    assert gradient[MASK].tolist() == pytest.approx(CLIPPED, abs=1e-12)


@pytest.mark.parametrize("setting", GOLDEN, ids=lambda s: s["name"])
def test_mhpo_equals_mpmath(setting: dict) -> None:  # type: ignore[type-arg]
    names = setting["hyperparameters"]
    config = Mhpo(
        c=names["c"], k_pos=names["k_pos"], lambda_pos=names["lam_pos"], k_neg=names["k_neg"], lambda_neg=names["lam_neg"]
    )
    for row in setting["rows"]:
        log_ratio = torch.tensor(float(row["d"]), dtype=torch.float64, requires_grad=True)
        parts = modulate(log_ratio, config)
        parts.weight.backward()  # type: ignore[no-untyped-call]
        for name in ("psi", "zeta_pos", "zeta_neg", "weight", "multiplier"):
            assert getattr(parts, name).item() == pytest.approx(row[name], rel=1e-12, abs=1e-15), (name, row["d"])
        # tanh's own backward computes 1 - tanh^2, which has few digits left where |d| is large
        assert log_ratio.grad.item() == pytest.approx(row["multiplier"], rel=1e-9, abs=1e-15), row["d"]  # type: ignore[union-attr]


def test_no_gradient_flows_through_the_hazards() -> None:
    """With zeta differentiated too, the gradient at d = 0 would be exp(-zeta)(1 - zeta'), not exp(-zeta)."""
    log_ratio = torch.zeros((), dtype=torch.float64, requires_grad=True)
    modulate(log_ratio, Mhpo()).weight.backward()  # type: ignore[no-untyped-call]
    ln2 = math.log(2)
    assert log_ratio.grad.item() == pytest.approx(math.exp(-(ln2**1.5) - (ln2 / 0.8) ** 2), rel=1e-14)  # type: ignore[union-attr]


def test_multiplier_is_bounded_however_far_the_policy_has_moved() -> None:
    log_ratio = torch.linspace(-50, 50, 20_001, dtype=torch.float64)
    multiplier = modulate(log_ratio, Mhpo()).multiplier
    assert multiplier.max().item() == pytest.approx(0.396, abs=5e-4)  # 0.396 at d = 0.578
    assert log_ratio[multiplier.argmax()].item() == pytest.approx(0.578, abs=3e-3)
    assert torch.isfinite(multiplier).all()


def test_on_policy_survival() -> None:
    assert on_policy_survival(Mhpo()) == pytest.approx(0.2650622127026223, rel=1e-12)


def test_dppo_is_the_authors_by_default() -> None:
    """p_old = 0.5: tv stops at p > 0.65 (A > 0) and p < 0.35 (A < 0), the Bernoulli KL 0.05 between 0.65 and 0.66."""
    for config, p, kept in (
        (Dppo(), 0.649, True),
        (Dppo(), 0.651, False),
        (Dppo(divergence="kl"), 0.65, True),  # KL = 0.5 ln(0.5/0.65) + 0.5 ln(0.5/0.35) = 0.04715
        (Dppo(divergence="kl"), 0.66, False),  # 0.5 ln(0.5/0.66) + 0.5 ln(0.5/0.34) = 0.05400
    ):
        for advantage, now in ((1.0, p), (-1.0, 1 - p)):
            old_BT = torch.tensor([[0.5]], dtype=torch.float64).log()
            now_BT = torch.tensor([[now]], dtype=torch.float64).log()
            mask_BT, advantages_B = torch.tensor([[True]]), torch.tensor([advantage], dtype=torch.float64)
            _, gradient = loss_and_gradient(config, now_BT, old_BT, advantages_B, mask_BT, mask_BT.double())
            expected = -advantage * now / 0.5 if kept else 0.0
            assert gradient.item() == pytest.approx(expected, rel=1e-12), (config, now)
            _, other_way = loss_and_gradient(config, now_BT, old_BT, -advantages_B, mask_BT, mask_BT.double())
            assert other_way.item() == pytest.approx(advantage * now / 0.5, rel=1e-12), "a move against A is never stopped"


def test_bernoulli_kl_by_hand() -> None:
    old, now = torch.tensor(0.5, dtype=torch.float64).log(), torch.tensor(0.66, dtype=torch.float64).log()
    assert bernoulli_kl(old, now).item() == pytest.approx(0.5 * math.log(0.5 / 0.66) + 0.5 * math.log(0.5 / 0.34), abs=1e-7)
    certain = torch.zeros(1)
    assert bernoulli_kl(certain, certain).item() == 0.0
    assert torch.isfinite(bernoulli_kl(torch.tensor([-0.1]), certain)).all()


def test_nothing_masked_reaches_the_loss_not_even_nan() -> None:
    weights = torch.tensor([[0.5, 0.0], [0.0, 0.0]])
    values = torch.tensor([[2.0, math.nan], [math.inf, math.nan]], requires_grad=True)
    loss = weighted_sum(values, weights)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 1.0
    assert values.grad is not None
    assert values.grad.tolist() == [[0.5, 0.0], [0.0, 0.0]]


def test_sequence_losses_leave_masked_tokens_out_by_themselves() -> None:
    """Called without `token_loss`, which blanks what is masked: ratios e^0.2, e^0.4 and a masked e^7, mean e^0.3."""
    old_BT = torch.tensor([[-2.0, -2.0, -9.0]], dtype=torch.float64)
    now_BT = old_BT + torch.tensor([[0.2, 0.4, 7.0]], dtype=torch.float64)
    mask_BT, advantages_B = torch.tensor([[True, True, False]]), torch.tensor([-1.0], dtype=torch.float64)
    assert mean_over_tokens(now_BT - old_BT, mask_BT).item() == pytest.approx(0.3, rel=1e-12)
    for loss in (
        gspo_loss(now_BT, old_BT, advantages_B, mask_BT, Gspo()),
        gspo_token_loss(now_BT, old_BT, advantages_B, mask_BT, GspoToken()),
        gmpo_loss(now_BT, old_BT, advantages_B, mask_BT, Gmpo()),
    ):
        assert loss.loss_BT[0, 0].item() == pytest.approx(math.exp(0.3), rel=1e-12)
    phi = vespo_loss(now_BT, old_BT, advantages_B, mask_BT, Vespo()).telemetry_BT["phi"][0, 0].item()
    assert phi == pytest.approx(math.exp(3 * 0.6 + 2 * (1 - math.exp(0.6))), rel=1e-12)
