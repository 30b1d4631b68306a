"""Advantages by hand, what is left out of the loss, and where other trainers differ."""

from collections.abc import Sequence

import pytest

from trainer.advantages import GroupRewards, batch_advantages, group_advantages, has_signal, trained
from trainer.objective_config import (
    Advantages,
    KeepOverlong,
    MaskOverlong,
    ResampleZeroVariance,
    SkipZeroVariance,
)
from trainer.types import Completion, FinishReason, Problem, RolloutGroup, Score

GROUP_STD = Advantages()


def group(rewards: Sequence[float], valid: Sequence[bool] | None = None) -> GroupRewards:
    return GroupRewards(rewards, [True] * len(rewards) if valid is None else valid)


def test_group_std_by_hand() -> None:
    """Rewards 0, 0, 1, 1: mean 1/2, standard deviation with n - 1 sqrt(1/3)."""
    value = 0.5 / (3**-0.5 + 1e-4)
    assert group_advantages(group([0, 0, 1, 1]), GROUP_STD) == pytest.approx((-value, -value, value, value))


def test_group_mean_by_hand() -> None:
    found = group_advantages(group([0, 0, 1, 2]), Advantages(type="group_mean"))
    assert found == pytest.approx((-0.75, -0.75, 0.25, 1.25))


def test_leave_one_out_by_hand() -> None:
    """Of the third: 1 less the mean of 0, 0, 2."""
    found = group_advantages(group([0, 0, 1, 2]), Advantages(type="leave_one_out"))
    assert found == pytest.approx((-1.0, -1.0, 1 - 2 / 3, 2 - 1 / 3))


def test_batch_std_by_hand() -> None:
    """Groups 0, 1 and 1, 3: means 1/2 and 2; all four rewards: mean 5/4, variance (25 + 1 + 1 + 49) / 16 / 3 = 19/12."""
    found = batch_advantages([group([0, 1]), group([1, 3])], Advantages(type="batch_std"))
    scale = (19 / 12) ** 0.5 + 1e-4
    assert found[0] == pytest.approx((-0.5 / scale, 0.5 / scale))
    assert found[1] == pytest.approx((-1 / scale, 1 / scale))


def test_batch_std_counts_groups_of_zero_variance() -> None:
    """0, 1 and 1, 1: mean 3/4, variance (9 + 1 + 1 + 1) / 16 / 3 = 1/4."""
    found = batch_advantages([group([0, 1]), group([1, 1])], Advantages(type="batch_std"))
    assert found[0] == pytest.approx((-0.5 / 0.5001, 0.5 / 0.5001))
    assert found[1] == (0.0, 0.0)


@pytest.mark.parametrize("kind", ["group_std", "group_mean", "leave_one_out", "batch_std"])
def test_equal_rewards_say_nothing(kind: str) -> None:
    """Exactly 0, although 0.1 + 0.1 + 0.1 is not 0.3 in floating point."""
    settings = Advantages.parse({"type": kind})
    assert batch_advantages([group([0.1] * 3), group([0.1] * 3)], settings) == [(0.0,) * 3] * 2


@pytest.mark.parametrize("kind", ["group_std", "group_mean", "leave_one_out", "batch_std"])
def test_a_failed_grading_counts_nowhere(kind: str) -> None:
    settings = Advantages.parse({"type": kind})
    (with_failures,) = batch_advantages([group([0, 1, 99, 1], (True, True, False, False))], settings)
    (without,) = batch_advantages([group([0, 1])], settings)
    assert with_failures == (*without, 0.0, 0.0)


def test_trap_7_the_floor_of_the_group_std_is_trls() -> None:
    """Rewards 0 and 0.001: std with n - 1 = 0.000707. TRL adds 1e-4, verl 1e-6, open-instruct 1e-8 with n."""
    std = 0.001 / 2**0.5
    found = group_advantages(group([0.0, 0.001]), GROUP_STD)[1]
    assert found == pytest.approx(0.0005 / (std + 1e-4))
    for other in (0.0005 / (std + 1e-6), 0.0005 / (std + 1e-5), 0.0005 / (0.0005 + 1e-8)):
        assert abs(found - other) > 0.05


def test_trap_7_a_group_of_one_teaches_nothing() -> None:
    """verl's advantage of a lone completion is its raw reward."""
    assert group_advantages(group([1.0, 5.0], (True, False)), GROUP_STD) == (0.0, 0.0)


def rollouts(rewards: Sequence[float], finish: Sequence[FinishReason], errors: Sequence[bool] | None = None) -> RolloutGroup:
    """A group whose i-th completion has token i."""
    failed = [False] * len(rewards) if errors is None else errors
    return RolloutGroup(
        problem=Problem("p", 0, "1+1=", "2"),
        prompt_token_ids=(1,),
        completions=tuple(Completion((i,), "", (-1.0,), reason) for i, reason in enumerate(finish)),
        scores=tuple(Score(r, {}, {"math": "failed"} if bad else {}) for r, bad in zip(rewards, failed, strict=True)),
        advantages=tuple(float(i) for i in range(len(rewards))),
    )


MIXED = rollouts([0, 1, 1], ["stop", "length", "stop"])
EQUAL = rollouts([1, 1, 1], ["stop", "stop", "stop"])
ALL_CUT = rollouts([0, 1, 0], ["length"] * 3)


def test_signal() -> None:
    assert [has_signal(g) for g in (MIXED, EQUAL, ALL_CUT)] == [True, False, True]
    assert not has_signal(rollouts([0, 5], ["stop", "stop"], errors=[False, True])), "what could not be graded says nothing"


def test_what_is_left_out() -> None:
    every = [MIXED, EQUAL, ALL_CUT]
    assert trained(every, Advantages(), KeepOverlong()) == every
    for zero_variance in (SkipZeroVariance(), ResampleZeroVariance()):
        assert trained(every, Advantages(zero_variance=zero_variance), KeepOverlong()) == [MIXED, ALL_CUT]
    masked = trained(every, Advantages(), MaskOverlong())
    assert [[c.token_ids for c in g.completions] for g in masked] == [[(0,), (2,)], [(0,), (1,), (2,)]]
    assert [g.advantages for g in masked] == [(0.0, 2.0), (0.0, 1.0, 2.0)], "the cut completion's reward has had its part"


def test_trap_10_a_cut_completion_is_no_row_at_all() -> None:
    """TRL keeps it with an attention mask of zeros: its row is computed, and counts in the mean over sequences."""
    (left,) = trained([MIXED], Advantages(), MaskOverlong())
    assert len(left.completions) == len(left.scores) == len(left.advantages) == 2
