"""The checkpoint with the highest validation reward is named and stays."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.running import curve, events, finish
from trainer.checkpoint import MARKER, Progress, best, complete, prune, step_of
from trainer.exits import Exit


def checkpoint(folder: Path, step: int, reward: float | None) -> None:
    state = folder / f"step_{step}" / "trainer_state"
    state.mkdir(parents=True)
    (state / "progress.json").write_text(json.dumps(asdict(Progress(step=step, validation_reward=reward))))
    (state.parent / MARKER).touch()


def test_the_first_of_the_highest_is_the_best(tmp_path: Path) -> None:
    assert best(tmp_path) is None
    for step, reward in ((2, None), (4, 0.5), (10, 0.75), (12, 0.75), (14, 0.1)):
        checkpoint(tmp_path, step, reward)
    assert best(tmp_path) == (10, 0.75)
    (tmp_path / "step_10" / MARKER).unlink()  # not complete: it does not exist
    assert best(tmp_path) == (12, 0.75)


def test_a_checkpoint_of_an_older_trainer_has_no_reward(tmp_path: Path) -> None:
    checkpoint(tmp_path, 2, None)
    progress = asdict(Progress(step=2))
    del progress["validation_reward"]
    (tmp_path / "step_2" / "trainer_state" / "progress.json").write_text(json.dumps(progress))
    assert best(tmp_path) is None
    assert Progress(**progress).validation_reward is None


def test_the_best_is_spared_and_the_next_best_goes(tmp_path: Path) -> None:
    for step, reward in ((2, 0.9), (4, 0.5), (6, 0.4), (8, 0.3)):
        checkpoint(tmp_path, step, reward)
    found = best(tmp_path)
    assert found is not None
    assert prune(tmp_path, 1, spare=[found[0]]) == [4, 6]
    assert sorted(map(step_of, complete(tmp_path))) == [2, 8]


@pytest.mark.slow
def test_a_run_names_its_best_and_keeps_it(tmp_path: Path, tiny_model: Path, sums_file: Path) -> None:
    """The reward is length, and the weights are driven hard, so that validation goes up and down."""
    spec: dict[str, Any] = {
        "steps": 6,
        "model": {"path": str(tiny_model)},
        "dataset": {"path": str(sums_file), "validation_size": 8},
        "rollout": {"engine": "transformers", "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 12},
        "optimizer": {"lr": 1e-3},
        "rewards": [{"type": "length", "target": 2, "limit": 12}],
        "checkpoints": {"every": 1, "keep": 1},
    }
    folder = tmp_path / "run"
    assert finish(spec, folder) == Exit.DONE, (folder / "trainer.log").read_text()
    rewards = {step: metrics["eval/reward"] for step, metrics in curve(folder).items()}
    top = max(rewards.values())
    first = min(step for step, reward in rewards.items() if reward == top)
    assert json.loads((folder / "best_checkpoint.json").read_text()) == {"step": first, "validation_reward": top}
    assert {step_of(one) for one in complete(folder / "checkpoints")} == {first, 6}
    told = {event["data"]["step"]: event["data"]["validation_reward"] for event in events(folder, "checkpoint")}
    assert told == rewards
    records = [step for step, reward in rewards.items() if reward > max((rewards[s] for s in range(1, step)), default=-1)]
    assert [event["data"]["step"] for event in events(folder, "best_checkpoint")] == records
