"""The short form of `python -m benchmarks.chaos`: the same moments each time, judged in the same way."""

import os
import sys
from pathlib import Path

import pytest

from cli.process import finish, spawn

SECONDS = 840.0  # on a machine with other things to do; a minute on one without


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_and_frozen_at_random_the_service_ends_every_job_truthfully(tmp_path: Path) -> None:
    log = tmp_path / "chaos.log"
    argv = [sys.executable, "-m", "benchmarks.chaos", "--minutes", "0.4", "--jobs", "3", "--seed", "4"]
    process = spawn([*argv, "--folder", str(tmp_path / "chaos")], log=log, env=dict(os.environ))
    try:
        assert process.wait(SECONDS) == 0, log.read_text()
    finally:
        finish(process, 0)
    assert "violations: 0" in log.read_text()
