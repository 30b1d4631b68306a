"""Several passes over one rollout batch."""

from pathlib import Path
from typing import Any

import pytest

from trainer.config import JobSpec
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
