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
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from api.settings import settings
from trainer.process import end_with_parent

ONE_OF_SEVERAL = "--one-of-several"  # with the descriptor of the process's own socket behind it
_TELEMETRY_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # where prometheus_client has the processes add up what they count
_BACKLOG = 2048
_LOOK_SECONDS = 0.2
_GRACE_SECONDS = 8.0


def serve_several(count: int) -> int:
    """Serve in `count` processes until asked to stop, or until one of them ends; returns the exit status."""
    asked = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: asked.set())
    with _sockets(count) as sockets:
        host, port = sockets[0].getsockname()[:2]
        address = f"[{host}]" if ":" in host else host
        sys.stderr.write(f"{count} processes, running on http://{address}:{port} as soon as /readyz says so\n")
        with _children(sockets, port) as children:
            while not asked.wait(_LOOK_SECONDS):
                ended = [child.returncode for child in children if child.poll() is not None]
                if ended:
                    return next((status for status in ended if status > 0), 1)
    return 0


def own_socket() -> socket.socket | None:
    """The socket of this process where it is one of several; else None."""
    return socket.socket(fileno=int(sys.argv[2])) if sys.argv[1:2] == [ONE_OF_SEVERAL] else None


def is_one_of_several() -> bool:
    """Whether other processes serve beside this one."""
    return _TELEMETRY_FOLDER in os.environ


@contextmanager
def _sockets(count: int) -> Iterator[Sequence[socket.socket]]:
    """Sockets that listen on one port, a free one for port 0; nobody else has it. Exits where somebody has."""
    host, port = settings().host, settings().port
    with ExitStack() as opened:
        try:
            with _listening(host, port, shared=False) as free:
                port = free.getsockname()[1]
            made = [opened.enter_context(_listening(host, port, shared=True)) for _ in range(count)]
        except OSError as error:
            sys.exit(f"cannot listen on {host}:{port}: {error.strerror}")
        yield made


def _listening(host: str, port: int, *, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if shared:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind((host, port))
    made.listen(_BACKLOG)
    return made


@contextmanager
def _children(sockets: Sequence[socket.socket], port: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """A process of this program for each socket; at the end they are asked to stop, and killed where they do not."""
    folder = _empty_folder(port)
    env = {**os.environ, _TELEMETRY_FOLDER: str(folder)}
    children = [_start(own.fileno(), env) for own in sockets]
    try:
        yield children
    finally:
        for child in children:
            child.terminate()
        deadline = time.monotonic() + _GRACE_SECONDS
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(max(0.0, deadline - time.monotonic()))
            child.kill()
            child.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _start(descriptor: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "api", ONE_OF_SEVERAL, str(descriptor)]
    return subprocess.Popen(argv, env=env, pass_fds=[descriptor], preexec_fn=end_with_parent())


def _empty_folder(port: int) -> Path:
    folder = settings().data_dir.resolve() / "telemetry" / str(port)
    shutil.rmtree(folder, ignore_errors=True)  # of processes that were killed
    folder.mkdir(parents=True)
    return folder
