"""The API in several processes on one port: real ones, over HTTP."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.models import Scope
from api.settings import Settings
from tests.api.locked import client_of
from tests.conftest import ASLEEP, SECONDS, ApiServer, api_server, wait_until

pytestmark = pytest.mark.slow
COUNT = 2
REQUESTS = 64


@pytest.fixture
def several(record: Settings, tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path / "api.log", MHPO_API_PROCESSES=str(COUNT), **ASLEEP) as server:
        wait_until(lambda: len(children(server)) == COUNT and is_ready(server))
        yield server


def children(server: ApiServer) -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process(server.process.pid).children()
    return found


def is_ready(server: ApiServer) -> bool:
    try:
        return httpx.get(f"{server.url}/readyz", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def are_gone(processes: list[psutil.Process]) -> None:
    gone, alive = psutil.wait_procs(processes, timeout=SECONDS)
    assert (len(gone), alive) == (COUNT, [])


def counted(server: ApiServer) -> float:
    """How many requests for jobs that are not there /metrics tells of."""
    with client_of(server, "default", Scope.ADMIN) as admin:
        families = text_string_to_metric_families(admin.get("/metrics").text)
    samples = (sample for family in families for sample in family.samples)
    wanted = ("mhpo_http_request_seconds_count", "/v1/jobs/{job_id}")
    return sum(sample.value for sample in samples if (sample.name, sample.labels.get("route")) == wanted)


def test_they_share_the_port_and_count_together(several: ApiServer, record: Settings) -> None:
    with client_of(several, "default", Scope.ADMIN) as keyed:
        headers = {"authorization": keyed.headers["authorization"]}
    wait_until(lambda: len(answered(several, record, headers)) == COUNT)
    before = counted(several)
    for _ in range(REQUESTS):  # each on a connection of its own
        assert httpx.get(f"{several.url}/v1/jobs/nonsense", headers=headers, trust_env=False).status_code == 404
    assert counted(several) == before + REQUESTS
    env = {**os.environ, "MHPO_PORT": several.url.rpartition(":")[2], "MHPO_API_PROCESSES": str(COUNT)}
    second = subprocess.run([sys.executable, "-m", "api"], check=False, env=env, capture_output=True, text=True, timeout=60)
    assert second.returncode == 1
    assert "cannot listen on 127.0.0.1" in second.stderr
    processes = children(several)
    several.process.terminate()
    assert several.process.wait(SECONDS) == 0
    are_gone(processes)


def answered(server: ApiServer, record: Settings, headers: dict[str, str]) -> set[str]:
    """Asks once more; the files of the processes that have answered so far."""
    httpx.get(f"{server.url}/v1/jobs/nonsense", headers=headers, trust_env=False)
    return {file.name for file in (record.data_dir / "telemetry").glob("*/histogram_*.db")}


def test_the_end_of_one_is_the_end_of_all(several: ApiServer) -> None:
    processes = children(several)
    processes[0].send_signal(signal.SIGKILL)
    assert several.process.wait(SECONDS) == 1
    are_gone(processes)


def test_none_outlives_the_process_that_started_them(several: ApiServer) -> None:
    processes = children(several)
    several.process.kill()
    are_gone(processes)
