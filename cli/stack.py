"""Everything that `mhpo up` runs: servers, schema, API and workers, in the order in which they need each other."""

import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
from pydantic import ValidationError

from api.settings import Settings
from cli.credentials import key_file
from cli.embedded import Postgres, Redis
from cli.errors import CliError, ExitCode
from cli.keys import local_key, somebody_has_a_key
from cli.lock import owned
from cli.service import Program, Service, Supervisor, ending, tail

READY_SECONDS = 60.0
API_GRACE_SECONDS = 10.0
# A worker that is asked to stop has its trainer write a checkpoint first; see `cancel_grace_seconds`.
WORKER_EXTRA_SECONDS = 30.0

Say = Callable[[str], None]


class Stack:
    """The running service."""

    def __init__(self, settings: Settings, say: Say) -> None:
        self.data_dir = settings.data_dir.resolve()
        self.url = f"http://{_reachable(settings.host)}:{settings.port}"
        self._settings = settings
        self._say = say
        self._supervisor = Supervisor(say)
        self.key: str | None = None  # of whoever runs the service, once it runs

    @property
    def logs(self) -> Path:
        return self.data_dir / "logs"

    def start(self) -> None:
        """Start all and wait until the API is ready; raises CliError that says which part failed and shows its log."""
        refuse_taken(self._settings.host, self._settings.port)
        env = self._start_servers()
        self._migrate(env)
        self._find_key(env["MHPO_DATABASE_URL"])
        api = self._program("api", env, API_GRACE_SECONDS, "-m", "api")
        self._supervisor.start(api)
        self._wait_until_ready(api)
        self._supervisor.start(self._worker("worker", "gpu", env), self._worker("evaluator", "eval", env))
        self._say("worker: takes jobs; evaluator: takes evaluations")

    def tend(self) -> None:
        """Start again what died; raises CliError for a part that keeps dying."""
        self._supervisor.tend()

    def stop(self) -> None:
        self._supervisor.stop()

    def _start_servers(self) -> Mapping[str, str]:
        """The environment of our programs, with the addresses of the given or the embedded servers."""
        given = self._settings.model_fields_set
        addresses = {"database_url": self._settings.database_url, "redis_url": self._settings.redis_url}
        servers: list[Service] = []
        if "database_url" not in given:
            postgres = Postgres(self.data_dir)
            servers.append(postgres)
            addresses["database_url"] = postgres.url
        if "redis_url" not in given:
            redis = Redis(self.data_dir)
            servers.append(redis)
            addresses["redis_url"] = redis.url
        self._supervisor.start(*servers)
        for name in addresses:
            self._say(f"{name.removesuffix('_url')}: {'given' if name in given else 'embedded, ready'}")
        return {
            **os.environ,
            "MHPO_DATABASE_URL": addresses["database_url"],
            "MHPO_REDIS_URL": addresses["redis_url"],
            "MHPO_DATA_DIR": str(self.data_dir),
            "MHPO_HOST": self._settings.host,
            "MHPO_PORT": str(self._settings.port),
            "PYTHONUNBUFFERED": "1",
        }

    def _migrate(self, env: Mapping[str, str]) -> None:
        migrate = self._program("migrate", env, 0, "-m", "migrations")
        migrate.start()
        assert migrate.process is not None
        try:
            code = migrate.process.wait()
        finally:
            migrate.finish()
        if code != 0:
            raise CliError(f"the schema could not be migrated ({ending(code)}); the end of {migrate.log}:\n{tail(migrate.log)}")
        self._say("schema: up to date")

    def _find_key(self, database_url: str) -> None:
        """On the loopback address the owner's key is made at the first start; anywhere else somebody must have one."""
        if not self._settings.on_loopback:
            if not somebody_has_a_key(database_url):
                raise CliError(
                    f"on {self._settings.host} every request needs an API key, and there is none yet: make one with "
                    f"`mhpo keys create NAME --data-dir {self.data_dir}`, or listen on 127.0.0.1"
                )
            return
        self.key, is_new = local_key(self.data_dir, self.url, database_url)
        if is_new:
            self._say(f"page, with your key (shown once, kept in {key_file(self.data_dir)}): {self.url}/#key={self.key}")

    def _wait_until_ready(self, api: Program) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_ready(self.url):
            code = None if api.process is None else api.process.poll()
            if code is not None or time.monotonic() > deadline:
                what = f"not ready after {READY_SECONDS:.0f} s" if code is None else ending(code)
                raise CliError(f"the API is {what}; the end of {api.log}:\n{tail(api.log)}")
            time.sleep(0.05)
        self._say(f"api: {self.url}")

    def _worker(self, name: str, queues: str, env: Mapping[str, str]) -> Program:
        grace = self._settings.cancel_grace_seconds + WORKER_EXTRA_SECONDS
        argv = [
            "-m",
            "celery",
            "-A",
            "worker.tasks",
            "worker",
            "-Q",
            queues,
            "-n",
            f"{name}@%h",
            "-c",
            "1",
            "-l",
            "INFO",
            "--without-mingle",
            "--without-gossip",
        ]
        return self._program(name, env, grace, *argv)

    def _program(self, name: str, env: Mapping[str, str], grace: float, *argv: str) -> Program:
        return Program(name, [sys.executable, *argv], env, self.logs / f"{name}.log", grace)


@contextmanager
def running(settings: Settings, say: Say) -> Iterator[Stack]:
    """The service for the length of a block, the data folder owned; raises CliError where it cannot be started."""
    with owned(settings.data_dir.resolve()):
        stack = Stack(settings, say)
        try:
            stack.start()
            yield stack
        finally:
            stack.stop()


def settings_from(*, data_dir: Path | None = None, host: str | None = None, port: int | None = None) -> Settings:
    """The settings of the environment, the options of the command line before them; port 0 becomes a free one."""
    given = {name: value for name, value in (("data_dir", data_dir), ("host", host), ("port", port)) if value is not None}
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        name, message = ".".join(map(str, fault["loc"])).upper(), fault["msg"].removeprefix("Value error, ")
        raise CliError(f"MHPO_{name}: {message}; got {fault['input']!r}", ExitCode.REFUSED) from error
    if settings.port == 0:
        return settings_from(data_dir=data_dir, host=host, port=free_port(settings.host))
    return settings


def refuse_taken(host: str, port: int) -> None:
    """Raises CliError where something listens on the address."""
    _bound(host, port).close()


def free_port(host: str) -> int:
    """A port of `host` that nothing listens on now; raises CliError for no address of this machine."""
    with _bound(host, 0) as probe:
        port: int = probe.getsockname()[1]
        return port


def _bound(host: str, port: int) -> socket.socket:
    """A socket with that address; raises CliError where it cannot be had."""
    probe = socket.socket()
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind((host, port))
    except OSError as error:
        probe.close()
        raise CliError(
            f"cannot listen on {host}:{port}: {error.strerror}; choose another with --host, --port, MHPO_HOST or MHPO_PORT"
        ) from error
    return probe


def _reachable(host: str) -> str:
    """An address to call what listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)


def is_ready(url: str) -> bool:
    """Whether the API answers there, and has all that it needs."""
    try:
        return httpx.get(f"{url}/readyz", timeout=5.0, trust_env=False).is_success
    except httpx.TransportError:
        return False
