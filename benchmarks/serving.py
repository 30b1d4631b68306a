"""A record and an API of a benchmark's own, on this machine's cores."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli import embedded
from cli.process import ask, finish, spawn
from cli.stack import free_port, is_ready

_READY_SECONDS = 60.0


@contextmanager
def own_record(folder: Path, **settings: str) -> Iterator[str]:
    """Embedded PostgreSQL and Redis with nothing in them, and where their API will be; this process's settings name them."""
    with embedded.servers(folder) as servers:
        port = free_port("127.0.0.1")
        os.environ |= {"MHPO_DATABASE_URL": servers.database_url, "MHPO_REDIS_URL": servers.redis_url, "MHPO_PORT": str(port)}
        os.environ |= settings
        yield f"http://127.0.0.1:{port}"


@contextmanager
def serving(folder: Path, url: str) -> Iterator[None]:
    """One API process, ready at `url`."""
    api = spawn([sys.executable, "-m", "api"], log=folder / "api.log", env=dict(os.environ))
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while not is_ready(url):
            if time.monotonic() > deadline:
                sys.exit(f"the API is not ready after {_READY_SECONDS:.0f} s")
            time.sleep(0.05)
        yield
    finally:
        ask(api, signal.SIGTERM)
        finish(api, 30.0)
