"""A service of real processes with short clocks, and jobs small enough to train in seconds."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from api.settings import Settings
from cli.process import ask, finish, spawn
from tests.conftest import ApiServer, api_server, wait_until
from trainer.tasks import sums
from worker.lines import MetricsLine, parse_lines

CLOCKS = {
    "MHPO_LEASE_SECONDS": "5",
    "MHPO_HEARTBEAT_SECONDS": "0.5",
    "MHPO_REAPER_SECONDS": "0.5",
    "MHPO_OUTBOX_SECONDS": "0.2",
    "MHPO_HINT_SECONDS": "5",
    "MHPO_BACKOFF_SECONDS": "0.1",
    "MHPO_CANCEL_GRACE_SECONDS": "30",
}
PATIENCE = 240.0

Spec = dict[str, Any]
StartWorker = Callable[..., subprocess.Popen[bytes]]


@dataclass(frozen=True, slots=True)
class Training:
    """A job that a worker is training."""

    worker: subprocess.Popen[bytes]
    job_id: str
    folder: Path


Train = Callable[..., Training]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base/: a Qwen3 of random weights; train.jsonl and heldout.jsonl: sums."""
    from trainer.first_run import character_tokenizer, small_qwen3

    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder / "base")
    tokenizer.save_pretrained(folder / "base")
    sums.write_problems(folder / "train.jsonl", 64, seed=1)
    sums.write_problems(folder / "heldout.jsonl", 4, seed=2)
    return folder


@pytest.fixture
def spec(tiny: Path) -> Spec:
    """A job of six short steps whose reward (digits in random text) differs between completions."""
    return {
        "steps": 6,
        "seed": 7,
        "model": {"path": str(tiny / "base")},
        "dataset": {"path": str(tiny / "train.jsonl")},
        "rollout": {"engine": "transformers", "prompts_per_step": 2, "group_size": 4, "max_new_tokens": 8},
        "optimizer": {"lr": 1e-4},
        "rewards": [{"type": "regex", "pattern": "[0-9]"}],
        "checkpoints": {"every": 2},
        "resources": {"device": "cpu", "threads": 1},
    }


@pytest.fixture
def api(record: Settings, tmp_path: Path) -> Iterator[ApiServer]:
    """An API with its reaper awake, over an empty record."""
    with api_server(tmp_path / "api.log", **CLOCKS) as server:
        yield server


@pytest.fixture
def http(api: ApiServer) -> Iterator[httpx.Client]:
    with api.client() as client:
        yield client


@pytest.fixture
def start_worker(record: Settings, tmp_path: Path) -> Iterator[StartWorker]:
    """Starts a Celery worker for a queue; all are stopped after the test."""
    with ExitStack() as stop:

        def start(name: str = "worker", queue: str = "gpu", **environment: str) -> subprocess.Popen[bytes]:
            argv = ["-m", "celery", "-A", "worker.tasks", "worker", "-Q", queue, "-n", f"{name}@%h", "-c", "1", "-l", "INFO"]
            log = tmp_path / f"{name}.log"
            process = spawn([sys.executable, *argv], log=log, env={**os.environ, **CLOCKS, **environment})
            stop.callback(finish, process, 60.0)
            stop.callback(ask, process, signal.SIGTERM)
            wait_until(lambda: "ready." in log.read_text())
            return process

        yield start


@pytest.fixture
def train(http: httpx.Client, start_worker: StartWorker, record: Settings) -> Train:
    """Starts a worker and submits a job; returns once the job is beyond step `beyond`, still running."""

    def start(spec: Spec, beyond: int, name: str = "first", **environment: str) -> Training:
        worker = start_worker(name, **environment)
        job_id = submit(http, spec)
        wait_until(lambda: recorded_steps(http, job_id) > beyond, PATIENCE)
        return Training(worker, job_id, record.run_folder(job_id))

    return start


def submit(http: httpx.Client, spec: Spec) -> str:
    answer = http.post("/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def job(http: httpx.Client, job_id: str) -> Any:
    return http.get(f"/v1/jobs/{job_id}").raise_for_status().json()


def wait_for(http: httpx.Client, job_id: str, status: str) -> Any:
    """The job once it is in `status`; fails at once if it ends in another."""

    def reached() -> bool:
        now = job(http, job_id)
        assert now["status"] in {status, "queued", "running"}, now
        return bool(now["status"] == status)

    wait_until(reached, PATIENCE)
    return job(http, job_id)


def uninterrupted(http: httpx.Client, spec: Spec, record: Settings) -> dict[int, dict[str, float]]:
    """The curves of a job of this spec that nothing happens to."""
    job_id = submit(http, spec)
    assert wait_for(http, job_id, "succeeded")["attempt"] == 1
    return curves(record.run_folder(job_id))


def statuses(http: httpx.Client, job_id: str) -> list[str]:
    """The statuses that the job's events tell of, in their order."""
    return [event["data"]["status"] for event in events(http, job_id) if event["type"] == "status"]


def events(http: httpx.Client, job_id: str) -> list[Any]:
    found: list[Any] = []
    while page := http.get(f"/v1/jobs/{job_id}/events?limit=1000&after={found[-1]['id'] if found else 0}").json()["data"]:
        found += page
    return found


def resumed_at(http: httpx.Client, job_id: str) -> list[int]:
    """The steps that attempts went on from."""
    return [event["step"] for event in events(http, job_id) if event["type"] == "resumed"]


def recorded_steps(http: httpx.Client, job_id: str) -> int:
    return int(job(http, job_id)["step"])


def run_processes(folder: Path) -> list[psutil.Process]:
    """The live processes of a run: those that name its folder, and all below them."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter(["cmdline"]):
        if any(str(folder) in part for part in process.info["cmdline"] or ()):
            found |= {process, *process.children(recursive=True)}
    return [process for process in found if not gone(process)]


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def curves(folder: Path) -> dict[int, dict[str, float]]:
    """step -> metrics of a run folder, without those that measure the machine; the later of two lines of a step counts."""
    lines, _ = parse_lines((folder / "metrics.jsonl").read_bytes(), MetricsLine)
    return {line.step: reproducible(line.metrics) for line in lines}


def reproducible(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith(("time/", "perf/")) and name != "step_time"}
