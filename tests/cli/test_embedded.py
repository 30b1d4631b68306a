"""The embedded servers: data stays, processes do not, and neither root nor a long path is in the way."""

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cli import embedded
from cli.errors import CliError
from cli.lock import owned
from tests.cli.command import living
from tests.conftest import wait_until


def count_starts(servers: embedded.Servers) -> tuple[int, int]:
    """Add a row to PostgreSQL and one to a counter of Redis; returns how many there are."""
    with psycopg.connect(servers.database_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS starts (at timestamptz DEFAULT now())")
        connection.execute("INSERT INTO starts DEFAULT VALUES")
        row = connection.execute("SELECT count(*) FROM starts").fetchone()
    assert row is not None
    with redis.Redis.from_url(servers.redis_url) as client:
        return int(row[0]), int(str(client.incr("starts")))


def test_a_second_start_has_the_data_of_the_first(tmp_path: Path) -> None:
    with embedded.servers(tmp_path) as servers:
        assert count_starts(servers) == (1, 1)
    with embedded.servers(tmp_path) as servers:
        assert count_starts(servers) == (2, 2)


def test_stopped_it_leaves_no_process(tmp_path: Path) -> None:
    with embedded.servers(tmp_path) as servers:
        heads = [psutil.Process(server.process.pid) for server in (servers.postgres, servers.redis) if server.process]
        processes = [*heads, *heads[0].children()]
        assert len(living(processes)) > 2
    assert living(processes) == []


def test_a_folder_whose_name_is_too_long_for_a_socket(tmp_path: Path) -> None:
    with embedded.servers(tmp_path / ("long" * 40)) as servers:
        assert count_starts(servers) == (1, 1)
        sockets = servers.postgres.sockets
        assert len(str(sockets)) < 100
    assert not sockets.exists()


def test_redis_asks_for_its_password(tmp_path: Path) -> None:
    refused = pytest.raises(redis.AuthenticationError)
    with (
        embedded.servers(tmp_path) as servers,
        redis.Redis(port=servers.redis.port, retry=Retry(NoBackoff(), 0)) as stranger,
        refused,
    ):
        stranger.ping()


def test_what_a_power_cut_left_is_no_obstacle(tmp_path: Path) -> None:
    with embedded.servers(tmp_path) as servers:
        count_starts(servers)
    # Process 1 lives and is no PostgreSQL of ours.
    (tmp_path / "postgres" / "postmaster.pid").write_text(f"1\n{tmp_path / 'postgres'}\n1\n5432\n\n\n  1 1\nready\n")
    with embedded.servers(tmp_path) as servers:
        assert count_starts(servers)[0] == 2


def test_a_server_that_cannot_start_is_an_error_that_names_its_log(tmp_path: Path) -> None:
    with embedded.servers(tmp_path):
        pass
    (tmp_path / "postgres" / "PG_VERSION").write_text("9.6\n")
    with pytest.raises(embedded.ServerError, match=r"PostgreSQL ended with 1; its output is in .*postgres\.log"):
        embedded.start(tmp_path)


_START = """
import sys
from pathlib import Path
from cli import embedded
embedded.start(Path(sys.argv[1]))
print("up", flush=True)
input()
"""


def test_a_killed_parent_takes_both_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _START, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"up\n"
        below = psutil.Process(parent.pid).children(recursive=True)
        assert len(living(below)) > 2
        parent.kill()
        parent.wait()
        wait_until(lambda: not living(below), 15)
    with embedded.servers(tmp_path) as servers:
        assert count_starts(servers) == (1, 1)


@pytest.fixture
def nobodys_folder() -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("not root: the other tests already ran as an ordinary user")
    folder = Path(tempfile.mkdtemp(prefix="mhpo-test-"))
    os.chown(folder, pwd.getpwnam("nobody").pw_uid, -1)
    yield folder
    wait_until(lambda: not (folder / "postgres" / "postmaster.pid").exists())  # its parent is gone, it is still writing
    shutil.rmtree(folder)


def test_an_ordinary_user_can_start_it(nobodys_folder: Path) -> None:
    argv = [*embedded.as_nobody(), sys.executable, "-c", _START, str(nobodys_folder)]
    done = subprocess.run(argv, check=False, input=b"\n", capture_output=True, timeout=60)
    assert done.stdout == b"up\n", done.stderr.decode()
    assert nobodys_folder.joinpath("postgres").stat().st_uid == pwd.getpwnam("nobody").pw_uid


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    taken = pytest.raises(CliError, match=rf"is in use by another mhpo \(process {os.getpid()}\)")
    with owned(tmp_path), taken, owned(tmp_path):
        pass
    with owned(tmp_path):
        pass
