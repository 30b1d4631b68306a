"""`mhpo up`: every part is there, comes back when it dies, and is gone when it should be."""

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from tests.cli.command import Up, living, mhpo, up
from tests.conftest import wait_until

pytestmark = pytest.mark.slow  # many short processes


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with up(tmp_path_factory.mktemp("up")) as running:
        yield running


def test_all_parts_run_and_the_api_is_ready(service: Up) -> None:
    assert service.is_ready()
    names = {part.name() for part in service.parts()}
    assert {"postgres", "redis-server"} <= names
    service.part("api")
    service.part("worker@%h")
    service.part("evaluator@%h")


def test_the_owner_has_a_key_that_nobody_else_can_read(service: Up) -> None:
    kept = service.data_dir / "key.json"
    assert kept.stat().st_mode & 0o077 == 0
    key = json.loads(kept.read_text())["key"]
    assert service.said().count(f"{service.url}/#key={key}") == 1
    listed = httpx.get(f"{service.url}/v1/keys", headers={"authorization": f"Bearer {key}"}, trust_env=False)
    assert [each["name"] for each in listed.json()["data"]] == ["made by mhpo up"]


def test_a_second_one_in_the_same_folder_is_refused(service: Up) -> None:
    second = mhpo("up", "--data-dir", str(service.data_dir), "--port", "0")

    assert second.returncode == 1
    assert second.stderr.startswith(f"mhpo: {service.data_dir} is in use by another mhpo (process {service.process.pid})")
    assert service.is_ready()


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        refused = mhpo("up", "--data-dir", str(tmp_path / "data"), "--port", str(port))

    assert refused.returncode == 1
    assert refused.stderr.startswith(f"mhpo: cannot listen on 127.0.0.1:{port}: Address already in use")


@pytest.mark.parametrize("name", ["api", "redis-server", "postgres"])
def test_a_part_that_dies_is_reported_and_started_again(service: Up, name: str) -> None:
    part = next(each for each in service.parts() if name in each.cmdline() or each.name() == name)
    before = service.said()

    part.send_signal(signal.SIGKILL)

    wait_until(lambda: "started again" in service.said()[len(before) :])
    wait_until(service.is_ready)
    assert "killed by SIGKILL" in service.said()[len(before) :]
    assert not living([part])


@pytest.mark.slow
@pytest.mark.parametrize("asked", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_in_order(tmp_path: Path, asked: signal.Signals) -> None:
    with up(tmp_path) as running:
        parts = running.parts()
        assert len(living(parts)) >= 6

        running.process.send_signal(asked)

        assert running.process.wait(30) == 0
        assert living(parts) == []
        assert running.said().endswith(f"{asked.name}: stopped\n")
        logs = running.data_dir / "logs"
        assert "database system is shut down" in (logs / "postgres.log").read_text()
        assert "Warm shutdown" in (logs / "worker.log").read_text()


@pytest.mark.slow
def test_killed_it_leaves_no_process(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        parts = running.parts()
        assert len(living(parts)) >= 6

        running.process.kill()

        wait_until(lambda: not living(parts), 15)


@pytest.mark.slow
def test_started_again_it_has_what_was_there(tmp_path: Path) -> None:
    with up(tmp_path) as running:
        file = {"file": ("problems.jsonl", b'{"problem": "1+1=", "answer": "2"}\n')}
        uploaded = httpx.post(f"{running.url}/v1/files", files=file, trust_env=False).json()["id"]
        parts = [*running.parts(), psutil.Process(running.process.pid)]
        running.process.kill()  # no clean end: PostgreSQL still writes its checkpoint when the next one starts
    with up(tmp_path) as running:
        assert httpx.get(f"{running.url}/v1/files/{uploaded}", trust_env=False).is_success
    wait_until(lambda: not living(parts))
