"""What is logged of each ratio control, by hand from a few tokens."""

import math

import pytest
import torch

from tests.trainer.golden import ADVANTAGES, MASK, OLD, RATIO
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
from trainer.losses.multiplier import on_policy_multiplier
from trainer.losses.ratio_control import token_loss
from trainer.losses.telemetry import telemetry_metrics

S = (0.945 ** (1 / 3), 0.882 ** (1 / 4))  # the sequence ratios of the golden input: 1.5 x 0.6 x 1.05, 0.7 x 1.4 x 0.9


def logged(algorithm: Algorithm) -> dict[str, float]:
    """The metrics of the golden input: 7 tokens, ratios 1.5, 0.6, 1.05 with A = 1 and 0.7, 1.4, 1, 0.9 with A = -0.5."""
    loss = token_loss(algorithm, OLD + RATIO.log(), OLD, ADVANTAGES, MASK)
    return telemetry_metrics({name: values[MASK] for name, values in loss.telemetry_BT.items()}, RATIO.log()[MASK], algorithm)


@pytest.mark.parametrize("algorithm", [Grpo(), Dapo(), DrGrpo()], ids=lambda a: a.type)
def test_grpo(algorithm: Algorithm) -> None:
    """Clipped: 1.5 above, 0.7 below; the largest ratio left is 1.4, with A < 0."""
    expected = {"low_mean": 1 / 7, "high_mean": 1 / 7, "region_mean": 2 / 7}
    assert logged(algorithm) == pytest.approx({f"clip_ratio/{k}": v for k, v in expected.items()} | {"multiplier/max": 1.4})


def test_dual_clip() -> None:
    metrics = logged(Grpo(dual_clip=1.3))
    assert metrics["clip_ratio/dual_mean"] == pytest.approx(1 / 7)
    assert metrics["clip_ratio/region_mean"] == pytest.approx(2 / 7), "TRL's: the clip alone"
    assert metrics["multiplier/max"] == pytest.approx(1.05)


@pytest.mark.parametrize(("algorithm", "lengths"), [(Gspo(), (1, 1)), (GspoToken(), (1, 1)), (Luspo(), (3, 4))])
def test_sequence_ratios_are_averaged_over_sequences(algorithm: Algorithm, lengths: tuple[int, int]) -> None:
    """Not over tokens, by which the second would count 4/7. It is clipped below, with A < 0."""
    assert logged(algorithm) == pytest.approx(
        {
            "clip_ratio/low_mean": 0.5,
            "clip_ratio/high_mean": 0.0,
            "clip_ratio/region_mean": 0.5,
            "sequence_ratio/mean": sum(S) / 2,
            "sequence_ratio/min": S[1],
            "sequence_ratio/max": S[0],
            "multiplier/max": S[0] * lengths[0],
        }
    )


def test_gmpo() -> None:
    """One token of seven clipped, 1.5 > e^0.4 with A > 0: it counts as e^0.4 in its sequence's mean."""
    ratio = (math.exp(0.4) * 0.6 * 1.05) ** (1 / 3)
    metrics = logged(Gmpo())
    assert metrics["clip_ratio/high_mean"] == pytest.approx(1 / 7)
    assert metrics["clip_ratio/low_mean"] == 0.0
    assert metrics["sequence_ratio/mean"] == pytest.approx((ratio + S[1]) / 2)
    assert metrics["multiplier/max"] == pytest.approx(ratio), "of the tokens that are not clipped"


def test_sapo() -> None:
    gates = [1 / math.cosh((r - 1) / 2) ** 2 for r in (1.5, 0.6, 1.05)]
    gates += [1 / math.cosh(1.05 * (r - 1) / 2) ** 2 for r in (0.7, 1.4, 1.0, 0.9)]
    metrics = logged(Sapo())
    assert metrics == pytest.approx(
        {"multiplier/max": 1.5 * gates[0], "sapo/gate_mean": sum(gates) / 7, "sapo/saturation": 0.0}
    )


def test_sapo_is_saturated_where_tanh_is_beyond_0_9() -> None:
    """tau 10: |tanh(5 (r - 1))| is above 0.9 where |r - 1| > 0.2945: at 1.5 and 0.6, and at 0.7 and 1.4."""
    assert logged(Sapo(tau_pos=10.0, tau_neg=10.0))["sapo/saturation"] == pytest.approx(4 / 7)


def test_cispo() -> None:
    assert logged(Cispo(ratio_min=0.8, ratio_max=1.2)) == pytest.approx(
        {
            "multiplier/max": 1.2,
            "cispo_clip_ratio": 1 / 7,  # TRL's: above the cap with A > 0, which is 1.5
            "cispo/capped_low_mean": 2 / 7,  # 0.6, 0.7
            "cispo/capped_high_mean": 2 / 7,  # 1.5, 1.4
        }
    )


def test_dppo() -> None:
    """p_old is 0.368, 0.607, 0.135, 0.497, 0.301, 0.741, 0.082; p - p_old 0.184 at the first, -0.243 at the second."""
    moved = [abs(math.exp(o) * (r - 1)) for o, r in zip(OLD[MASK].tolist(), RATIO[MASK].tolist(), strict=True)]
    assert logged(Dppo()) == pytest.approx(
        {
            "multiplier/max": 1.4,
            "clip_ratio/low_mean": 0.0,  # 0.497 x 0.3 = 0.149 is just within 0.15
            "clip_ratio/high_mean": 1 / 7,
            "clip_ratio/region_mean": 1 / 7,
            "dppo/divergence_mean": sum(moved) / 7,
            "dppo/divergence_max": 0.4 * math.exp(-0.5),
            "dppo/capped_high_mean": 0.0,
        }
    )


def test_vespo() -> None:
    positive = 0.945**2 * math.exp(3 * (1 - 0.945))
    negative = 0.882**3 * math.exp(2 * (1 - 0.882))
    assert logged(Vespo()) == pytest.approx(
        {
            "multiplier/max": positive,
            "vespo/phi_seq_mean": (positive + negative) / 2,
            "vespo/phi_seq_min": negative,
            "vespo/phi_seq_max": positive,
        }
    )


def test_reinforce() -> None:
    assert logged(Reinforce()) == {"multiplier/max": 1.0}


def test_mhpo_zero_region_logs_its_clip_fractions() -> None:
    plain, region = logged(Mhpo()), logged(Mhpo(zero_region=True))
    clips = {"clip_ratio/low_mean": 1 / 7, "clip_ratio/high_mean": 1 / 7, "clip_ratio/region_mean": 2 / 7}
    assert not set(clips) & set(plain)
    assert {name: region[name] for name in clips} == pytest.approx(clips)
    assert region["mhpo/weight_max"] == plain["mhpo/weight_max"]
    assert region["multiplier/max"] < plain["multiplier/max"], "the token at 1.5 had the largest"


def test_mhpo_normalized() -> None:
    plain, normalized = logged(Mhpo()), logged(Mhpo(normalize_on_policy=True))
    survival = 0.2650622127026223
    for name in ("mhpo/weight_mean", "multiplier/max"):
        assert normalized[name] == pytest.approx(plain[name] / survival)
    assert normalized["mhpo/survival_on_policy"] == plain["mhpo/survival_on_policy"] == pytest.approx(survival)
    assert on_policy_multiplier(Mhpo()) == pytest.approx(survival)
    assert on_policy_multiplier(Mhpo(normalize_on_policy=True)) == 1.0


def test_values_are_finite_numbers_in_float32() -> None:
    loss = token_loss(Gspo(), (OLD + RATIO.log()).float(), OLD.float(), ADVANTAGES.float(), MASK)
    values = {name: value[MASK] for name, value in loss.telemetry_BT.items()}
    assert all(torch.isfinite(torch.tensor(list(telemetry_metrics(values, RATIO.log()[MASK], Gspo()).values()))))
