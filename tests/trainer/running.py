"""Runs of the trainer as processes, and what they leave, for the tests that compare runs."""

import json
import os
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from trainer.metrics import is_wall_clock
from trainer.run_folder import read_lines

DEADLINE = 120  # seconds; a run here takes about ten


def start(spec: dict[str, Any], folder: Path, module: str = "trainer") -> "subprocess.Popen[bytes]":
    """`python -m trainer FOLDER` in a process group of its own."""
    write_spec(spec, folder)
    with (folder / "trainer.log").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", module, str(folder)], stdout=log, stderr=log, start_new_session=True)


def finish(spec: dict[str, Any], folder: Path, module: str = "trainer") -> int:
    return start(spec, folder, module).wait(DEADLINE)


def write_spec(spec: dict[str, Any], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(spec))


def fork_server() -> ForkServerContext:
    """Where `fork` gets its processes: one that has imported torch and transformers, and computed nothing."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the trainer does before it imports torch
    context = get_context("forkserver")
    context.set_forkserver_preload(["trainer.train", "transformers.models.qwen3.modeling_qwen3", "tests.trainer.running"])
    return context


def fork(context: ForkServerContext, spec: dict[str, Any], folder: Path) -> ForkServerProcess:
    """As `start`, without the seconds that the imports take."""
    write_spec(spec, folder)
    process = context.Process(target=run_trainer, args=(str(folder),))
    process.start()
    return process


def run_trainer(folder: str) -> None:
    """What a forked process does: the trainer's own `main`."""
    from trainer.__main__ import main

    log = os.open(Path(folder) / "trainer.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.argv = ["trainer", folder]
    main()


def wait_for_step(process: "subprocess.Popen[bytes]", folder: Path, step: int) -> None:
    """Until the metrics line of `step` is there."""
    deadline = time.monotonic() + DEADLINE
    while not any(line["step"] == step for line in lines(folder, "metrics")):
        assert process.poll() is None, (folder / "trainer.log").read_text()
        assert time.monotonic() < deadline
        os.sched_yield()


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / f"{name}.jsonl"
    return read_lines(path) if path.exists() else []


def events(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [line for line in lines(folder, "events") if line["type"] == kind]


def result(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return found


def curve(folder: Path) -> dict[int, dict[str, float]]:
    """Metrics by step, the later line of a step counting, without what depends on the clock."""
    return {
        line["step"]: {name: value for name, value in line["metrics"].items() if not is_wall_clock(name)}
        for line in lines(folder, "metrics")
    }


def samples(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (folder / "samples").glob("*.jsonl")}


def assert_same_run(folder: Path, whole: Path, last: int = 6) -> None:
    """Bit for bit: metrics, samples and the final weights."""
    assert curve(folder) == curve(whole)
    assert samples(folder) == samples(whole)
    ours, theirs = (load_file(f / "checkpoints" / f"step_{last}" / "model.safetensors") for f in (folder, whole))
    assert ours.keys() == theirs.keys()
    assert all(ours[name].equal(theirs[name]) for name in ours)
