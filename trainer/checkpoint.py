"""Checkpoints: a Hugging Face model folder plus everything that the next step depends on.

Written to a temporary name, fsynced, renamed; the marker COMPLETE comes last. What has no marker does not exist.
"""

import json
import os
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from trainer.disk import DiskFullError, is_full
from trainer.learner import Learner
from trainer.policy import Policy
from trainer.rollout.queue import SampledBatch
from trainer.rollout.queue_state import pack, unpack

MARKER = "COMPLETE"
UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a run stands."""

    step: int = 0  # rollout batches trained on
    position: int = 0  # problems of those batches, in the order they were drawn
    num_tokens: int = 0  # trained tokens so far
    skipped: int = 0  # optimizer steps passed over because something in them was not finite
    validation_reward: float | None = None  # of this step, on the held-out problems, where it was validated


def save(folder: Path, policy: Policy, learner: Learner, progress: Progress, batches: Sequence[SampledBatch]) -> Path:
    """Writes checkpoints/step_N; returns it once it will survive a power cut.

    `batches`: sampled, and to be trained on in the steps that follow. Raises DiskFullError, with the room that the attempt
    took given back and the earlier checkpoints as they were.
    """
    folder.mkdir(exist_ok=True)
    final = folder / f"step_{progress.step}"
    unfinished = folder / (final.name + UNFINISHED)
    for leftover in (unfinished, final):  # `final` without a marker, from a kill between rename and marker
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        _write(unfinished, policy, learner, progress, batches)
    except Exception as error:
        full = is_full(folder, error)
        shutil.rmtree(unfinished, ignore_errors=True)
        if full:
            raise DiskFullError(f"there is no room in {folder} for the checkpoint of step {progress.step}") from error
        raise
    unfinished.rename(final)
    _fsync(folder)
    (final / MARKER).touch()
    _fsync(final / MARKER)
    _fsync(final)
    return final


def _write(folder: Path, policy: Policy, learner: Learner, progress: Progress, batches: Sequence[SampledBatch]) -> None:
    """Everything but the marker, on disk when this returns."""
    policy.model.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)
    state = folder / "trainer_state"
    state.mkdir()
    torch.save(learner.state(), state / "learner.pt")
    torch.save(_rng_state(), state / "rng.pt")
    torch.save([pack(batch) for batch in batches], state / "queue.pt")
    (state / "progress.json").write_text(json.dumps(asdict(progress)))
    for path in [*folder.rglob("*"), folder]:
        _fsync(path)


def latest(folder: Path) -> Path | None:
    """The complete checkpoint of the highest step."""
    return max(complete(folder), key=step_of, default=None)


def complete(folder: Path) -> list[Path]:
    """All complete checkpoints."""
    return [marker.parent for marker in folder.glob(f"step_*/{MARKER}")]


def best(folder: Path) -> tuple[int, float] | None:
    """(step, validation reward) of the complete checkpoint with the highest; the first of equal ones."""
    rewards = {step_of(one): validation_reward(one) for one in sorted(complete(folder), key=step_of)}
    found = [(step, reward) for step, reward in rewards.items() if reward is not None]
    return max(found, key=lambda one: one[1], default=None)


def validation_reward(checkpoint: Path) -> float | None:
    """What the checkpoint's weights were given on the held-out problems; None where it was not validated."""
    progress = json.loads((checkpoint / "trainer_state" / "progress.json").read_text())
    reward: float | None = progress.get("validation_reward")
    return reward


def step_of(checkpoint: Path) -> int:
    """17 of step_17."""
    return int(checkpoint.name.removeprefix("step_"))


def restore(checkpoint: Path, policy: Policy, learner: Learner) -> tuple[Progress, list[SampledBatch]]:
    """Optimizer, schedule, RNGs, counters and waiting batches of a checkpoint; the policy was loaded from it already."""
    state = checkpoint / "trainer_state"
    learner.restore(torch.load(state / "learner.pt", map_location=policy.device, weights_only=True))
    rng = torch.load(state / "rng.pt", map_location="cpu", weights_only=True)
    torch.set_rng_state(rng["cpu"])
    if rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"])
    batches = [unpack(batch) for batch in torch.load(state / "queue.pt", map_location="cpu", weights_only=True)]
    return Progress(**json.loads((state / "progress.json").read_text())), batches


def prune(folder: Path, keep: int, spare: Iterable[int]) -> list[int]:
    """Removes all but the newest `keep` checkpoints and the steps in `spare`; returns the steps removed.

    The marker goes first, so that a kill in the middle leaves no folder that looks complete.
    """
    spared = set(spare)
    removed = []
    for checkpoint in sorted(complete(folder), key=step_of)[:-keep]:
        if step_of(checkpoint) not in spared:
            (checkpoint / MARKER).unlink()
            shutil.rmtree(checkpoint)
            removed.append(step_of(checkpoint))
    for leftover in folder.glob(f"*{UNFINISHED}"):
        shutil.rmtree(leftover)
    return removed


def _rng_state() -> dict[str, object]:
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
