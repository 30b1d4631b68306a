"""Equation 13 of arXiv 2503.14476, by hand."""

import pytest

from trainer.config import JobSpec
from trainer.objective_config import KeepOverlong, MaskOverlong, SoftPunishment
from trainer.overlong import length_penalty
from trainer.strict import SpecError


@pytest.mark.parametrize(
    ("tokens", "penalty"),
    [(1, 0.0), (80, 0.0), (81, 0.05), (90, 0.5), (99, 0.95), (100, 1.0)],
)
def test_soft_punishment_by_hand(tokens: int, penalty: float) -> None:
    """Limit 100, buffer 20: nothing up to 80, then 1/20 a token."""
    assert length_penalty(tokens, 100, SoftPunishment(buffer=20)) == pytest.approx(penalty)
    assert length_penalty(tokens, 100, SoftPunishment(buffer=20, penalty=3.0)) == pytest.approx(3 * penalty)


def test_nothing_else_is_punished() -> None:
    assert length_penalty(100, 100, KeepOverlong()) == length_penalty(100, 100, MaskOverlong()) == 0.0


def test_a_buffer_above_the_limit_is_refused() -> None:
    document = {"model": {"path": "m"}, "dataset": {"path": "d"}, "rollout": {"max_new_tokens": 8}}
    with pytest.raises(SpecError, match=r"overlong\.buffer = 9 is more than rollout\.max_new_tokens = 8"):
        JobSpec.parse(document | {"overlong": {"type": "soft_punishment", "buffer": 9}})
