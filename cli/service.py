"""One long-running part of `mhpo up`, and the supervisor that keeps the parts alive."""

import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from cli.errors import CliError
from cli.process import ask, finish, spawn

MAX_RESTARTS = 5
CALM_SECONDS = 60.0  # a part that lived so long starts counting its restarts anew
BACKOFF_SECONDS = 1.0  # doubles with each restart


class Service(Protocol):
    """A part: `cli.embedded.Postgres`, `cli.embedded.Redis` or a `Program`."""

    @property
    def name(self) -> str: ...
    @property
    def log(self) -> Path: ...
    @property
    def process(self) -> subprocess.Popen[bytes] | None: ...
    def start(self) -> None: ...
    def ask_to_stop(self) -> None: ...
    def finish(self) -> None: ...


class Program:
    """A program of ours: killed by the kernel with its parent, asked by SIGTERM to stop."""

    def __init__(self, name: str, argv: Sequence[str], env: Mapping[str, str], log: Path, grace: float) -> None:
        self.name = name
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self._argv = argv
        self._env = env
        self._grace = grace

    def start(self) -> None:
        self.process = spawn(self._argv, log=self.log, env=self._env)

    def ask_to_stop(self) -> None:
        ask(self.process, signal.SIGTERM)

    def finish(self) -> None:
        finish(self.process, self._grace)
        self.process = None


class Supervisor:
    """Starts services, starts the dead again, stops all in reverse order. Call it from the main thread (see `cli.process`)."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._groups: list[list[Service]] = []
        self._started: dict[str, float] = {}
        self._restarts: dict[str, int] = {}
        self._due: dict[str, float] = {}

    def start(self, *group: Service) -> None:
        """Start services that may stop together, and keep them; raises what the start of one raises."""
        self._groups.append([])
        for service in group:
            self._groups[-1].append(service)
            self._start(service)

    def tend(self) -> None:
        """Look at every service once and start again those that died; raises CliError for one that keeps dying."""
        for group in self._groups:
            for service in group:
                self._tend(service, time.monotonic())

    def stop(self) -> None:
        """Stop all, the last started group first."""
        while self._groups:
            group = self._groups[-1]
            for service in group:
                service.ask_to_stop()
            for service in group:
                service.finish()
            self._groups.pop()

    def _start(self, service: Service) -> None:
        service.start()
        self._started[service.name] = time.monotonic()

    def _tend(self, service: Service, now: float) -> None:
        if service.name in self._due:
            if now >= self._due[service.name]:
                del self._due[service.name]
                self._start(service)
                self._say(f"{service.name}: started again")
            return
        code = None if service.process is None else service.process.poll()
        if code is None:
            return
        if now - self._started[service.name] > CALM_SECONDS:
            self._restarts[service.name] = 0
        count = self._restarts[service.name] = self._restarts.get(service.name, 0) + 1
        if count > MAX_RESTARTS:
            raise CliError(
                f"{service.name} ended {count} times ({ending(code)}); the end of {service.log}:\n{tail(service.log)}"
            )
        delay = BACKOFF_SECONDS * 2 ** (count - 1)
        self._say(f"{service.name}: {ending(code)}; see {service.log}; starting again in {delay:.0f} s")
        service.finish()  # what is left of its process group
        self._due[service.name] = now + delay


def ending(code: int) -> str:
    """How a process ended, in words."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log; empty where there is none."""
    if not log.exists():
        return ""
    return "\n".join(log.read_text(errors="replace").splitlines()[-lines:])
