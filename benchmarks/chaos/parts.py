"""The running service: each part a process of its own, started again when it dies, as docker-compose.yml would."""

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from cli.embedded import Postgres, Redis
from cli.service import Program, Service
from cli.stack import free_port, is_ready

RESTART_SECONDS = 0.5  # between the death of a part and its next start
WORKERS = ("worker-1", "worker-2")
# Short, so that a part that is frozen for seconds loses its lease.
CLOCKS = {
    "MHPO_LEASE_SECONDS": "6",
    "MHPO_HEARTBEAT_SECONDS": "1",
    "MHPO_REAPER_SECONDS": "1",
    "MHPO_OUTBOX_SECONDS": "0.5",
    "MHPO_HINT_SECONDS": "5",
    "MHPO_POLL_SECONDS": "2",
    "MHPO_BACKOFF_SECONDS": "0.2",
    "MHPO_CANCEL_GRACE_SECONDS": "20",
}


class Part:
    """One service with the policy `restart: unless-stopped`."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.restarts = 0
        self._due: float | None = None  # when it is started again; None while it lives

    @property
    def name(self) -> str:
        return self.service.name

    def start(self) -> None:
        self.service.start()

    def tend(self) -> None:
        """Start it again some time after it died; to be called often."""
        if self._due is not None:
            if time.monotonic() >= self._due:
                self._due = None
                self.restarts += 1
                self.service.start()
        elif self.service.process is not None and self.service.process.poll() is not None:
            self.service.finish()  # what is left of its process group
            self._due = time.monotonic() + RESTART_SECONDS

    def process(self) -> psutil.Process | None:
        """Its main process, unless it is down."""
        process = self.service.process
        return None if process is None or process.poll() is not None else psutil.Process(process.pid)


class Stack:
    """PostgreSQL, Redis, the API and two workers in `data_dir`."""

    def __init__(self, data_dir: Path, inputs: Path, max_attempts: int) -> None:
        self.data_dir = data_dir.resolve()
        self.postgres = Postgres(self.data_dir)
        self.redis = Redis(self.data_dir)
        port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{port}"
        self.environment = {
            **CLOCKS,
            "MHPO_DATABASE_URL": self.postgres.url,
            "MHPO_REDIS_URL": self.redis.url,
            "MHPO_DATA_DIR": str(self.data_dir),
            "MHPO_ALLOWED_ROOTS": str(inputs.resolve()),
            "MHPO_PORT": str(port),
            "MHPO_MAX_ATTEMPTS": str(max_attempts),
        }
        self.parts: dict[str, Part] = {}

    def start(self) -> None:
        """All parts, in the order in which they need each other, and the schema."""
        from migrations import schema

        os.environ.update(self.environment)
        self._start(self.postgres, self.redis)
        schema.upgrade()
        self._start(self._program("api", "-m", "api"))
        self.wait_until_ready()
        self._start(*(self._worker(name) for name in WORKERS))

    def tend(self) -> None:
        for part in self.parts.values():
            part.tend()

    def wait_until_ready(self, seconds: float = 60.0) -> None:
        """Until the API answers that it is ready, dead parts started again meanwhile; raises TimeoutError."""
        deadline = time.monotonic() + seconds
        while not is_ready(self.url):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the API was not ready within {seconds:.0f} s; see {self.data_dir / 'logs'}")
            self.tend()
            time.sleep(0.1)

    def stop(self) -> None:
        """The last started first."""
        services = [part.service for part in reversed(self.parts.values())]
        for service in services:
            if service.name in ("api", *WORKERS):
                service.ask_to_stop()
        for service in services:
            service.ask_to_stop()
            service.finish()

    def processes(self) -> set[psutil.Process]:
        """Everything that belongs to the parts."""
        mains = [process for part in self.parts.values() if (process := part.process()) is not None]
        return {each for main in mains for each in family(main)}

    def _start(self, *services: Service) -> None:
        for service in services:
            part = self.parts[service.name] = Part(service)
            part.start()

    def _worker(self, name: str) -> Program:
        argv = ("-m", "celery", "-A", "worker.tasks", "worker", "-Q", "gpu", "-n", f"{name}@%h", "-c", "1", "-l", "INFO")
        return self._program(name, *argv, "--without-mingle", "--without-gossip")

    def _program(self, name: str, *argv: str) -> Program:
        environment: Mapping[str, str] = {**os.environ, **self.environment, "PYTHONUNBUFFERED": "1"}
        return Program(name, [sys.executable, *argv], environment, self.data_dir / "logs" / f"{name}.log", grace=40.0)


def family(process: psutil.Process) -> list[psutil.Process]:
    """A process and all below it; empty once it is gone."""
    try:
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
