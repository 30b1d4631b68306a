"""Several passes over one rollout batch, and the drift that ends them."""

from pathlib import Path
from typing import Any

import pytest

from trainer.config import JobSpec
from trainer.metrics import is_wall_clock
from trainer.run_folder import RunFolder, read_lines
from trainer.stopping import StopSignal
from trainer.strict import SpecError
from trainer.train import train


def first_step(document: dict[str, Any], folder: Path) -> dict[str, float]:
    train(JobSpec.parse(document | {"steps": 1}), RunFolder(folder), StopSignal())
    metrics: dict[str, float] = read_lines(folder / "metrics.jsonl")[0]["metrics"]
    return metrics


def test_a_second_pass_trains_on_the_same_batch_against_the_same_old_policy(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    once = first_step(tiny_spec, tmp_path / "once")
    twice = first_step(tiny_spec | {"updates_per_batch": 2, "epochs_per_batch": 2}, tmp_path / "twice")
    parts = first_step(tiny_spec | {"updates_per_batch": 2}, tmp_path / "parts")
    assert (once["ratio/min"], once["ratio/max"]) == (1.0, 1.0)
    assert twice["reward"] == once["reward"], "the same rollouts"
    # The first pass is on-policy, so the largest ratio is of the second, measured against the weights before the first.
    assert twice["ratio/max"] > 1.001
    assert twice["loss"] < once["loss"], "the second pass finds a loss that the first has lowered"
    assert twice["grad_norm"] != parts["grad_norm"], "whole batches, not halves"


def test_passes_must_divide_the_updates_and_parts_must_be_whole_groups(tiny_spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="updates_per_batch = 3 must be a multiple of epochs_per_batch = 2"):
        JobSpec.parse(tiny_spec | {"updates_per_batch": 3, "epochs_per_batch": 2})
    with pytest.raises(SpecError, match=r"into 5 parts .* at most rollout.prompts_per_step = 4"):
        JobSpec.parse(tiny_spec | {"updates_per_batch": 10, "epochs_per_batch": 2})
    assert JobSpec.parse(tiny_spec | {"updates_per_batch": 8, "epochs_per_batch": 2}).updates_per_batch == 8


REUSE = {"updates_per_batch": 8, "epochs_per_batch": 4, "optimizer": {"lr": 1e-3, "schedule": "linear", "final_lr_fraction": 0}}
LEFT_OUT = "off_policy/updates_left_out"


def curve(document: dict[str, Any], folder: Path) -> list[dict[str, float]]:
    """Metrics that do not depend on the machine, of three steps."""
    train(JobSpec.parse(document | {"steps": 3}), RunFolder(folder), StopSignal())
    lines = [line["metrics"] for line in read_lines(folder / "metrics.jsonl")]
    return [{name: value for name, value in line.items() if not is_wall_clock(name)} for line in lines]


def test_a_limit_that_is_not_reached_changes_nothing(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    free = curve(tiny_spec | REUSE, tmp_path / "free")
    limited = curve(tiny_spec | REUSE | {"max_drift": 50}, tmp_path / "limited")
    assert [(line.pop(LEFT_OUT), line.pop("off_policy/completions_unused")) for line in limited] == [(0, 0)] * 3
    assert limited == free


def test_updates_past_the_limit_are_left_out(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    """The second update sees what the first has done: with a limit of next to nothing a batch is used for one update."""
    found = curve(tiny_spec | REUSE | {"max_drift": 1e-9}, tmp_path / "run")
    assert [line[LEFT_OUT] for line in found] == [7, 7, 7]
    assert [line["off_policy/completions_unused"] for line in found] == [8, 8, 8], "the second half of each batch"
    assert [line["ratio/log_abs_mean"] for line in found] == [0, 0, 0], "the first update is on-policy"
    rates = [line["learning_rate"] for line in found]
    assert rates == pytest.approx([1e-3 * (1 - planned / 24) for planned in (0, 8, 16)]), "the schedule goes by the plan"


def test_a_batch_is_used_up_to_the_limit(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    """Of eight updates the mean drift lies between the first's, which is 0, and the largest."""
    limit = curve(tiny_spec | REUSE, tmp_path / "free")[0]["ratio/log_abs_mean"]
    found = curve(tiny_spec | REUSE | {"max_drift": limit}, tmp_path / "limited")
    assert 1 <= found[0][LEFT_OUT] <= 7
    assert all(line["ratio/log_abs_mean"] <= limit for line in found), "no update past the limit was made"


def test_the_limit_counts_from_the_batchs_first_update_and_not_from_the_rollout(
    tiny_spec: dict[str, Any], tmp_path: Path
) -> None:
    """A batch two steps old is far from its rollout before it is trained on; that is the lag's, and leaves nothing out."""
    spec = tiny_spec | {"updates_per_batch": 2, "optimizer": {"lr": 1e-3}}
    spec |= {"rollout": tiny_spec["rollout"] | {"staleness": 2}}
    lag = curve(spec, tmp_path / "free")[-1]["ratio/log_abs_mean"]
    limited = curve(spec | {"max_drift": lag}, tmp_path / "limited")
    assert [line[LEFT_OUT] for line in limited] == [0, 0, 0]
    assert [line[LEFT_OUT] for line in curve(spec | {"max_drift": 1e-9}, tmp_path / "tight")] == [1, 1, 1]
