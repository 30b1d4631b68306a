"""`mhpo demo` from its start to its table, on a base model that is there already."""

from pathlib import Path

import psutil
import pytest

from tests.cli.command import living, mhpo
from tests.cli.tiny import write_tiny_run


@pytest.mark.slow
def test_the_demo_trains_scores_and_leaves_nothing_running(tmp_path: Path) -> None:
    write_tiny_run(tmp_path / "first-run")

    demo = mhpo("demo", "--data-dir", str(tmp_path), "--steps", "3", seconds=240)

    assert demo.returncode == 0, demo.stdout + demo.stderr
    lines = demo.stdout.splitlines()
    assert f"base model: {tmp_path}/first-run/base is there" in lines
    assert any(line.startswith("curl http://127.0.0.1:") and line.endswith(f"@{tmp_path}/first-run/job.json") for line in lines)
    assert any(line.startswith("step 3/3 100% | succeeded | reward 0") for line in lines)
    assert any(line.startswith("reward: first 0.000, best 0.000") for line in lines)
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines if line.startswith("│")]
    assert [row[:2] for row in rows] == [["base model", "heldout"], ["after step 3", "heldout"]]
    assert [[row[2], *row[4:]] for row in rows] == [["0.000", "200", "4"]] * 2
    model = Path(next(line for line in lines if line.startswith("model and checkpoint: ")).split(": ")[1])
    assert (model / "model.safetensors").exists()
    assert not living([process for process in psutil.process_iter() if _names(process, tmp_path)])


def _names(process: psutil.Process, folder: Path) -> bool:
    try:
        return any(str(folder) in part for part in process.cmdline())
    except psutil.NoSuchProcess:
        return False
