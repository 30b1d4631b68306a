"""A worker is there for who reads the record, whether or not it reaches its broker."""

import sys
from datetime import datetime
from pathlib import Path

import pytest

from api.settings import Settings
from cli.process import finish, spawn
from cli.stack import free_port
from tests.api.conftest import rows
from tests.conftest import wait_until
from tests.service.conftest import CLOCKS, PATIENCE


@pytest.mark.slow
def test_a_worker_without_redis_is_present(record: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its presence is a row of the database, which goes on being renewed, with the GPUs that its machine has."""
    monkeypatch.setenv("MHPO_REDIS_URL", f"redis://127.0.0.1:{free_port('127.0.0.1')}/0")
    monkeypatch.setenv("MHPO_GPU_SLOTS", "2")
    for name, value in CLOCKS.items():
        monkeypatch.setenv(name, value)
    argv = [sys.executable, "-m", "celery", "-A", "worker.tasks", "worker", "-Q", "gpu", "-n", "lonely@%h", "-c", "1"]
    process = spawn(argv, log=tmp_path / "worker.log")
    try:
        wait_until(seen, PATIENCE)
        first = seen()
        wait_until(lambda: seen()[0] > first[0], PATIENCE)
        assert rows("SELECT pid, queue FROM workers") == [(process.pid, "gpu")]
        assert rows("SELECT count(*) FROM gpu_slots") == [(2,)]
    finally:
        finish(process, 0)
    assert "Cannot connect to redis" in (tmp_path / "worker.log").read_text()


def seen() -> list[datetime]:
    """When each worker was last seen."""
    return [at for (at,) in rows("SELECT seen_at FROM workers")]
