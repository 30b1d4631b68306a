"""`mhpo` as a person runs it: the installed command, in a process of its own."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from cli.stack import free_port
from tests.conftest import wait_until
from trainer.process import end_with_parent

SECONDS = 60.0
MHPO = str(Path(sys.executable).parent / "mhpo")


def mhpo(*arguments: str, seconds: float = SECONDS, **environment: str) -> subprocess.CompletedProcess[str]:
    """One `mhpo` command to its end."""
    env = {**clean_environment(), **environment}
    return subprocess.run([MHPO, *arguments], check=False, env=env, capture_output=True, text=True, timeout=seconds)


def clean_environment() -> dict[str, str]:
    """The environment without the settings that the test run itself uses."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MHPO_")}


@dataclass(frozen=True, slots=True)
class Up:
    """A running `mhpo up`."""

    process: subprocess.Popen[bytes]
    url: str
    data_dir: Path
    output: Path

    def said(self) -> str:
        return self.output.read_text()

    def parts(self) -> list[psutil.Process]:
        """Every process below it."""
        return list(psutil.Process(self.process.pid).children(recursive=True))

    def part(self, word: str) -> psutil.Process:
        """The first process, from the top, with `word` in its command line."""
        return next(part for part in self.parts() if word in part.cmdline())

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.said()
        try:
            return httpx.get(f"{self.url}/readyz", timeout=SECONDS, trust_env=False).is_success
        except httpx.TransportError:
            return False


@contextmanager
def up(folder: Path, **environment: str) -> Iterator[Up]:
    """`mhpo up` in `folder`, all parts started; killed at the end where it still runs."""
    port = free_port("127.0.0.1")
    output = folder / "output"
    data_dir = folder / "data"
    argv = [MHPO, "up", "--data-dir", str(data_dir), "--port", str(port)]
    workers_before = _workers_ready(data_dir)
    with output.open("wb") as file:
        process = subprocess.Popen(
            argv,
            stdout=file,
            stderr=file,
            env={**clean_environment(), "MHPO_ALLOWED_ROOTS": tempfile.gettempdir(), **environment},
            start_new_session=True,
            preexec_fn=end_with_parent(),
        )
    running = Up(process, f"http://127.0.0.1:{port}", data_dir, output)
    try:
        wait_until(lambda: _all_started(running, workers_before))
        yield running
    finally:
        process.kill()
        process.wait()


def _all_started(running: Up, workers_before: int) -> bool:
    assert running.process.poll() is None, running.said()
    return "Ctrl-C stops everything" in running.said() and _workers_ready(running.data_dir) == workers_before + 2


def _workers_ready(data_dir: Path) -> int:
    """How often a worker has said in its log, which several starts share, that it is ready."""
    logs = [data_dir / "logs" / f"{name}.log" for name in ("worker", "evaluator")]
    return sum(log.read_text().count(" ready.") for log in logs if log.exists())


def living(processes: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Those of `processes` that have not ended; one that nobody has reaped yet has ended."""
    alive = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
    return alive
