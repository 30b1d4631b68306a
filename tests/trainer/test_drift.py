"""The warning about drift: where it comes, once, and where it does not."""

from typing import Any

import pytest

from trainer.config import JobSpec
from trainer.drift import LIMIT, STEPS, WATCHED, DriftWatch

REUSE = {"updates_per_batch": 16, "epochs_per_batch": 4}
FAR, NEAR = LIMIT * 1.5, LIMIT * 0.5


def warned(spec: dict[str, Any], curve: list[float], before: int = 0) -> list[int]:
    """The steps, from 1, at which a warning comes; the first `before` of them were done by an earlier start."""
    metrics = [{WATCHED: value} for value in curve]
    watch = DriftWatch(JobSpec.parse(spec), metrics[:before])
    return [step for step, one in enumerate(metrics[before:], start=before + 1) if watch.see(one)]


def test_it_comes_once_when_several_steps_are_far(tiny_spec: dict[str, Any]) -> None:
    assert warned(tiny_spec | REUSE, [FAR] * 10) == [STEPS]


def test_it_comes_again_only_after_the_run_had_come_back(tiny_spec: dict[str, Any]) -> None:
    curve = [FAR] * 5 + [NEAR] * 5 + [FAR] * 5
    assert len(warned(tiny_spec | REUSE, curve)) == 2


@pytest.mark.parametrize(
    "curve", [[NEAR] * 20, [NEAR, NEAR, NEAR, 50.0] * 5, [FAR] * (STEPS - 1)], ids=["near", "spikes", "short"]
)
def test_it_does_not_come_for_single_steps_or_small_ratios(tiny_spec: dict[str, Any], curve: list[float]) -> None:
    assert warned(tiny_spec | REUSE, curve) == []


def test_a_resumed_run_says_what_it_would_have_said(tiny_spec: dict[str, Any]) -> None:
    assert warned(tiny_spec | REUSE, [FAR] * 10, before=STEPS - 1) == [STEPS]
    assert warned(tiny_spec | REUSE, [FAR] * 10, before=STEPS) == []


def test_neither_on_policy_nor_stale_runs_are_warned(tiny_spec: dict[str, Any]) -> None:
    stale = tiny_spec | REUSE | {"rollout": tiny_spec["rollout"] | {"staleness": 2}}
    assert warned(tiny_spec, [FAR] * 10) == []
    assert warned(stale, [FAR] * 10) == []
