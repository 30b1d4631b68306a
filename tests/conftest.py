"""Real parts for every test: PostgreSQL, Redis and an API server of this test run alone."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest
from redis import Redis
from sqlalchemy import func, select, text
from sqlalchemy.exc import OperationalError

from api.database import engine
from api.models import Base
from api.reaper import LEADER_LOCK
from api.settings import Settings, settings
from cli import embedded
from cli.process import ask, finish, spawn
from migrations import schema

# Models of tests are tiny: further threads cost more than they give, and other tests run beside. Before PyTorch is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
# Each test process and its children keep compiled kernels of their own: numba's folder is not for two that compile at once for
# other types of numbers, which only tests do.
_KERNELS = Path(__file__).parents[1] / "trainer/cpu/__pycache__" / os.environ.get("PYTEST_XDIST_WORKER", "alone")
os.environ["NUMBA_CACHE_DIR"] = str(_KERNELS)

SECONDS = 30.0
# For an API beside tests that do the same work themselves: its reaper, relay and webhooks look once, when it starts.
ASLEEP = {"MHPO_REAPER_SECONDS": "3600", "MHPO_OUTBOX_SECONDS": "3600", "MHPO_WEBHOOK_SECONDS": "3600"}


def wait_until(condition: Callable[[], object], seconds: float = SECONDS) -> None:
    """Returns when `condition` is true; fails after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still false after {seconds:.0f} s"
        time.sleep(0.01)


@dataclass(frozen=True, slots=True)
class ApiServer:
    """An API process of a test."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        with httpx.Client(base_url=self.url, timeout=SECONDS, trust_env=False) as client:
            yield client


@pytest.fixture(scope="session")
def servers() -> Iterator[embedded.Servers]:
    """Embedded PostgreSQL, migrated, and Redis; `api.settings` points at them in this process and its children."""
    with (
        tempfile.TemporaryDirectory(prefix="mhpo-test-") as folder,
        pytest.MonkeyPatch.context() as environment,
        embedded.servers(Path(folder)) as running,
    ):
        environment.setenv("MHPO_DATABASE_URL", running.database_url)
        environment.setenv("MHPO_REDIS_URL", running.redis_url)
        environment.setenv("MHPO_DATA_DIR", folder)
        environment.setenv("MHPO_ALLOWED_ROOTS", tempfile.gettempdir())  # where tests have their models and data
        settings.cache_clear()
        schema.upgrade()
        yield running
        engine().dispose()


def _emptied() -> bool:
    """Whether the record could be emptied: not while a request of an earlier test, which nobody waits for, still reads it.

    It gives way before PostgreSQL looks for deadlocks (after 1 s): such a request has locked some tables and wants others.
    """
    tables = ", ".join(table.name for table in Base.metadata.sorted_tables)
    try:
        with engine().begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '200ms'"))
            # No reaper acts meanwhile (a service looks once when it starts).
            connection.execute(select(func.pg_advisory_xact_lock(LEADER_LOCK)))
            connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
    except OperationalError as error:
        if isinstance(error.orig, psycopg.errors.LockNotAvailable):
            return False
        raise
    return True


@pytest.fixture
def record(servers: embedded.Servers) -> Settings:
    """An empty record and an empty broker; returns the settings that point at them."""
    wait_until(_emptied)
    with Redis.from_url(servers.redis_url) as broker:
        broker.flushall()
    return settings()


@contextmanager
def api_server(log: Path, **environment: str) -> Iterator[ApiServer]:
    """An API process on a loopback port of its own choice, with more settings as MHPO_NAME="..."; it dies with this process."""
    env = {**os.environ, "MHPO_PORT": "0", **environment}
    process = spawn([sys.executable, "-m", "api"], log=log, env=env)
    try:
        wait_until(lambda: _address(process, log))
        yield ApiServer(process, _address(process, log), log)
    finally:
        ask(process, signal.SIGTERM)
        finish(process, SECONDS)


def _address(process: subprocess.Popen[bytes], log: Path) -> str:
    """Where the server says that it listens; empty until it does."""
    assert process.poll() is None, log.read_text()
    said = re.search(r"running on (http://[\d.:]+) ", log.read_text())
    return said[1] if said else ""


@pytest.fixture(scope="session")
def shared_api(servers: embedded.Servers) -> Iterator[ApiServer]:
    """One API process for the whole run. Its reaper and relay sleep (a POST wakes the relay): what a test does has no rival."""
    log = settings().data_dir / "logs" / "api.log"
    with api_server(log, **ASLEEP) as server:
        yield server


@pytest.fixture
def client(record: Settings, shared_api: ApiServer) -> Iterator[httpx.Client]:
    """HTTP to the API over an empty record."""
    with shared_api.client() as client:
        yield client
