"""Several API processes on one port, among which the kernel shares out the connections. They begin and end together.

A process that ends takes the others with it: whoever started the service starts it again as a whole.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from api.settings import settings
from trainer.process import end_with_parent

ONE_OF_SEVERAL = "--one-of-several"
TELEMETRY_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client has the processes add up what they count
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 8.0


def serve_several(count: int) -> int:
    """Serve in `count` processes until asked to stop, or until one of them ends; returns the exit status."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    try:
        reserved = _reserved(settings().host, settings().port)
    except OSError as error:
        sys.exit(f"cannot listen on {settings().host}:{settings().port}: {error.strerror}")
    with reserved, _children(count, port := reserved.getsockname()[1]) as children:
        sys.stderr.write(f"{count} processes, running on http://{settings().host}:{port} as soon as /readyz says so\n")
        while not asked.wait(_LOOK_SECONDS):
            ended = [child.returncode for child in children if child.poll() is not None]
            if ended:
                return next((status for status in ended if status > 0), 1)
    return 0


def shared_socket() -> socket.socket:
    """A socket of this process alone on the port that the processes share."""
    return _bound(settings().host, settings().port, shared=True)


def _reserved(host: str, port: int) -> socket.socket:
    """Keeps the port for this service, 0 made a free one; nobody listens on it. Raises OSError where another has it."""
    with _bound(host, port, shared=False) as free:
        port = free.getsockname()[1]
    return _bound(host, port, shared=True)


def _bound(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    return made


@contextmanager
def _children(count: int, port: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """So many processes of this program; at the end they are asked to stop, and killed where they do not."""
    env = {**os.environ, "MHPO_PORT": str(port), TELEMETRY_FOLDER: str(_empty_folder(port))}
    argv = [sys.executable, "-m", "api", ONE_OF_SEVERAL]
    children = [subprocess.Popen(argv, env=env, preexec_fn=end_with_parent()) for _ in range(count)]
    try:
        yield children
    finally:
        for child in children:
            child.terminate()
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(_GRACE_SECONDS)
            child.kill()
            child.wait()


def _empty_folder(port: int) -> Path:
    folder = settings().data_dir.resolve() / "telemetry" / str(port)
    shutil.rmtree(folder, ignore_errors=True)  # of processes that were killed
    folder.mkdir(parents=True)
    return folder
