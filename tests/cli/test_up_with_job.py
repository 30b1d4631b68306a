"""`mhpo up` with a job in it: stopped or killed, nothing is left over, and the job goes on at the next start."""

import json
import re
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cli.command import Up, living, mhpo, up
from tests.cli.tiny import write_tiny_run
from tests.conftest import wait_until

pytestmark = pytest.mark.slow

PATIENCE = 120.0
STEPS = 150


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job of short steps on a model of random weights."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny_run(folder)
    job = {
        "steps": STEPS,
        "model": {"path": str(folder / "base")},
        "dataset": {"path": str(folder / "train.jsonl")},
        "rollout": {"engine": "transformers", "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8},
        "optimizer": {"lr": 1e-4},
        "rewards": [{"type": "regex", "pattern": "[0-9]"}],
        "checkpoints": {"every": 2},
        "resources": {"device": "cpu", "threads": 1},
    }
    (folder / "job.json").write_text(json.dumps(job))
    return folder / "job.json"


def submitted(running: Up, spec: Path) -> str:
    return mhpo("submit", str(spec), "--url", running.url).stdout.split()[0]


def job(running: Up, job_id: str) -> Any:
    return httpx.get(f"{running.url}/v1/jobs/{job_id}", trust_env=False).raise_for_status().json()


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGKILL])
def test_the_job_goes_on_at_the_next_start(tmp_path: Path, spec: Path, asked: signal.Signals) -> None:
    clocks = {"MHPO_LEASE_SECONDS": "5", "MHPO_HEARTBEAT_SECONDS": "1", "MHPO_REAPER_SECONDS": "1"}
    with up(tmp_path, **clocks) as running:
        job_id = submitted(running, spec)
        wait_until(lambda: job(running, job_id)["step"] >= 5, PATIENCE)
        parts = running.parts()
        assert any("trainer" in part.cmdline() for part in parts)

        running.process.send_signal(asked)

        running.process.wait(PATIENCE)
        wait_until(lambda: not living(parts), 15)

    with up(tmp_path, **clocks) as running:
        assert 5 <= job(running, job_id)["step"] < STEPS
        watched = mhpo("watch", job_id, "--url", running.url)

    assert watched.returncode == 0, watched.stdout
    assert "attempt 2" in watched.stdout.splitlines()[-1]
    resumed = re.search(r"resumed from the checkpoint of step (\d+)", watched.stdout)
    assert resumed is not None
    assert int(resumed[1]) >= 4
