"""SIGKILL at a random moment of every phase of a step: what a run has written in the end does not tell that it was killed."""

import random
import signal
import time
from itertools import pairwise
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.running import DEADLINE, assert_same_run, events, fork, fork_server, lines
from trainer.exits import Exit

PHASES = ["weight_push", "rollout", "rewards", "learning", "checkpointing"]
SEED = random.SystemRandom().randrange(10**6)  # printed with a failure
STEPS = 12


@pytest.fixture(scope="module")
def server() -> ForkServerContext:
    return fork_server()


def spec_of(model: Path, data: Path, staleness: int) -> dict[str, Any]:
    return {
        "steps": STEPS,
        "updates_per_batch": 2,
        "max_drift": 0.03,
        "algorithm": {"type": "mhpo", "zero_region": True, "zero_region_since": "batch"},
        "model": {"path": str(model)},
        "dataset": {"path": str(data), "validation_size": 8},
        "rollout": {
            "engine": "transformers",
            "prompts_per_step": 4,
            "group_size": 4,
            "max_new_tokens": 12,
            "staleness": staleness,
        },
        "optimizer": {"lr": 1e-3, "schedule": "cosine"},
        "rewards": [{"type": "length", "target": 2, "limit": 12}],
        "checkpoints": {"every": 2, "keep": 2},
    }


def ended(process: ForkServerProcess) -> int | None:
    process.join(DEADLINE)
    return process.exitcode


def duration(folder: Path, phase: str) -> float:
    """Seconds that a phase of a step takes at most, to the next phase."""
    times = [(line["data"]["phase"], line["time"]) for line in events(folder, "phase")]
    spans = [after - before for (name, before), (_, after) in pairwise(times) if name == phase]
    return max(spans, default=0.05)


def kill_in(process: ForkServerProcess, folder: Path, phase: str, step: int, delay: float) -> None:
    """SIGKILL `delay` seconds after the process has entered the phase, in `step` or, where that has no such phase, later."""
    seen, deadline = len(lines(folder, "events")), time.monotonic() + DEADLINE
    while not any(e["step"] >= step and e["data"].get("phase") == phase for e in lines(folder, "events")[seen:]):
        assert process.is_alive(), (folder / "trainer.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    time.sleep(delay)  # the moment of the kill, not a wait for anything
    process.kill()
    assert ended(process) == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("staleness", "learners"), [(0, 1), (2, 1), (2, 2)])
def test_sigkill_in_each_phase_changes_nothing(
    tiny_model: Path, sums_file: Path, tmp_path: Path, server: ForkServerContext, staleness: int, learners: int
) -> None:
    """One run, killed in each phase in turn, each time further on."""
    rng = random.Random(SEED + staleness)
    spec = spec_of(tiny_model, sums_file, staleness) | {"resources": {"learners": learners}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert ended(fork(server, spec, whole)) == Exit.DONE, (whole / "trainer.log").read_text()
    order = rng.sample(PHASES, k=len(PHASES))
    plan = [(phase, step, rng.uniform(0, duration(whole, phase))) for step, phase in enumerate(order, start=3)]
    print(f"seed {SEED}: {plan}")  # noqa: T201  # shown where the test fails
    for phase, step, delay in plan:
        kill_in(fork(server, spec, killed), killed, phase, step, delay)
    assert ended(fork(server, spec, killed)) == Exit.DONE, (killed / "trainer.log").read_text()
    assert_same_run(killed, whole, last=STEPS)
    assert len(events(killed, "resumed")) == len(plan), "each start but the first found a checkpoint"
