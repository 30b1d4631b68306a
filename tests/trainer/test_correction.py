"""Correction weights by hand."""

import math
from typing import Any

import pytest
import torch

from trainer.correction import CorrectionWeights, correction_weights, effective_sample_size
from trainer.objective_config import Correction, MaskCorrection, NoCorrection, TruncateCorrection
from trainer.strict import SpecError

# Learner over sampler: 3, 1/4, 1 (its product 3/4) and 1.5 and 2, masked at the end (product 1.5).
RATIO = [[3.0, 0.25, 1.0], [1.5, 1.0, 9.0]]
MASK = torch.tensor([[True, True, True], [True, True, False]])


def weigh(correction: Correction) -> CorrectionWeights:
    old = torch.tensor([[-1.0, -2.0, -0.5], [-1.0, -1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    sampler = old.detach() - torch.tensor(RATIO, dtype=torch.float64).log()
    return correction_weights(old, sampler, MASK, correction)


@pytest.mark.parametrize(
    ("correction", "used", "bounded"),
    [
        (NoCorrection(), [1, 1, 1, 1, 1], [False] * 5),
        (TruncateCorrection(), [2, 0.25, 1, 1.5, 1], [True, False, False, False, False]),
        (TruncateCorrection(at_most=1.2), [1.2, 0.25, 1, 1.2, 1], [True, False, False, True, False]),
        (TruncateCorrection(level="sequence"), [0.75, 0.75, 0.75, 1.5, 1.5], [False] * 5),
        (TruncateCorrection(level="sequence", at_most=1.2), [0.75, 0.75, 0.75, 1.2, 1.2], [False] * 3 + [True] * 2),
        (MaskCorrection(), [0, 0, 1, 1.5, 1], [True, True, False, False, False]),
        (MaskCorrection(low=0.0, high=3.5), [3, 0.25, 1, 1.5, 1], [False] * 5),
        (MaskCorrection(level="sequence", low=0.8, high=1.6), [0, 0, 0, 1.5, 1.5], [True] * 3 + [False] * 2),
    ],
    ids=str,
)
def test_by_hand(correction: Correction, used: list[float], bounded: list[bool]) -> None:
    found = weigh(correction)
    assert found.used_BT[MASK].tolist() == pytest.approx(used, rel=1e-12)
    assert found.bounded_BT[MASK].tolist() == bounded
    assert not found.used_BT.requires_grad


def test_a_masked_token_is_in_no_product() -> None:
    """Its ratio of 9 would make the second sequence's weight 13.5; not even NaN reaches it."""
    sampler = torch.tensor([[-1.0, math.nan]])
    weights = correction_weights(
        torch.tensor([[-1.0, -1.0]]), sampler, torch.tensor([[True, False]]), TruncateCorrection(level="sequence")
    )
    assert weights.used_BT[0, 0].item() == 1.0


def test_an_overflow_is_above_every_bound() -> None:
    old, sampler, mask = torch.tensor([[0.0]]), torch.tensor([[-500.0]]), torch.tensor([[True]])
    assert correction_weights(old, sampler, mask, TruncateCorrection()).used_BT.item() == 2.0
    assert correction_weights(old, sampler, mask, MaskCorrection()).used_BT.item() == 0.0


def test_what_is_not_a_number_stays_so() -> None:
    """It must reach the check of the loss, not become a weight."""
    nan, mask = torch.tensor([[math.nan]]), torch.tensor([[True]])
    for correction in (TruncateCorrection(), MaskCorrection()):
        assert math.isnan(correction_weights(nan, torch.tensor([[-1.0]]), mask, correction).used_BT.item())


def test_effective_sample_size_by_hand() -> None:
    assert effective_sample_size(torch.tensor([2.0, 2.0, 2.0, 2.0])) == 1.0
    assert effective_sample_size(torch.tensor([1.0, 0.0, 0.0, 0.0])) == 0.25
    assert effective_sample_size(torch.tensor([1.0, 3.0])) == pytest.approx(16 / 20)
    assert effective_sample_size(torch.zeros(3)) == 0.0


@pytest.mark.parametrize("bounds", [{"low": 1.5}, {"high": 0.9}])
def test_a_band_without_one_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="must have 1 between them"):
        MaskCorrection.parse(bounds)
