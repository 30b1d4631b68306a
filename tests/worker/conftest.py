"""Small real processes for the process-control tests."""

import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest

from api.settings import Settings, settings
from tests.worker.jobs import work
from worker.process import Child

Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture
def eventually() -> Eventually:
    """Waits until a condition is true; fails after 15 s."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 15
        while not condition():
            assert time.monotonic() < deadline, "the condition stayed false for 15 s"
            time.sleep(0.01)

    return wait


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], Child]]:
    """Starts `python -c SCRIPT` as a Child, its log in tmp_path/log; whatever is left is killed after the test."""
    children: list[Child] = []

    def run(script: str) -> Child:
        mark = f"{tmp_path}-{len(children)}"
        children.append(Child.start(mark, [sys.executable, "-c", script, str(tmp_path)], tmp_path / "log", os.environ))
        return children[-1]

    yield run
    for child in children:
        child.reap()


@pytest.fixture
def quick(record: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """An empty record, and clocks short enough to wait for."""
    for name, value in {"LEASE_SECONDS": "4", "HEARTBEAT_SECONDS": "0.2", "CANCEL_GRACE_SECONDS": "1"}.items():
        monkeypatch.setenv(f"MHPO_{name}", value)
    settings.cache_clear()
    yield settings()
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def background() -> Iterator[Callable[[str], Future[None]]]:
    with ThreadPoolExecutor(4) as pool:
        yield lambda job_id: pool.submit(work, job_id)
