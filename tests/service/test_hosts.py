"""Two hosts: one freezes for longer than its lease, and the clocks of both are wrong."""

import os
from pathlib import Path

import httpx
import psutil
import pytest
from redis import Redis

from api.settings import Settings
from cli import embedded
from tests.api.conftest import rows
from tests.conftest import api_server, wait_until
from tests.service.conftest import (
    CLOCKS,
    PATIENCE,
    Spec,
    StartWorker,
    Train,
    gone,
    job,
    recorded_steps,
    resumed_at,
    run_processes,
    statuses,
    submit,
    wait_for,
)

pytestmark = pytest.mark.slow

# Python runs this file of its path at each start, the trainer's included.
WRONG_CLOCK = """
import os, time
seconds, right, right_ns = float(os.environ["CLOCK_IS_WRONG_BY"]), time.time, time.time_ns
time.time = lambda: right() + seconds
time.time_ns = lambda: right_ns() + int(seconds * 1e9)
"""


def wrong_clock(folder: Path, hours: int) -> dict[str, str]:
    """The environment of processes on a host whose clock is wrong by so much."""
    (folder / "sitecustomize.py").write_text(WRONG_CLOCK)
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH")]))
    return {"PYTHONPATH": path, "CLOCK_IS_WRONG_BY": str(3600 * hours)}


def hours_ahead(order: str) -> int:
    """Of the clock by which the first or last recorded step was written."""
    ahead = "SELECT round(extract(epoch FROM reported_at - created_at) / 3600) FROM step_metrics"
    return int(rows(f"{ahead} ORDER BY seq {order} LIMIT 1")[0][0])


def test_a_frozen_host_loses_its_job_to_another_whatever_their_clocks_say(
    http: httpx.Client, train: Train, start_worker: StartWorker, spec: Spec, tmp_path: Path
) -> None:
    run = train({**spec, "steps": 10_000, "checkpoints": {"every": 10}}, beyond=12, **wrong_clock(tmp_path, hours=1))
    start_worker("second", **wrong_clock(tmp_path, hours=-1))
    assert job(http, run.job_id)["attempt"] == 1, "a clock that is behind takes no lease for expired"
    worker, trainer = psutil.Process(run.worker.pid), run_processes(run.folder)
    host = [worker, *(each for each in worker.children(recursive=True) if each not in trainer)]
    for process in host:
        process.suspend()
    wait_until(lambda: resumed_at(http, run.job_id), PATIENCE)
    assert all(gone(process) for process in trainer), "two trainers never write one folder"
    written = rows("SELECT count(*), max(seq) FROM step_metrics WHERE attempt = 1")
    for process in host:
        process.resume()
    wait_until(lambda: "the lease is lost" in (tmp_path / "first.log").read_text(), PATIENCE)
    wait_until(lambda: hours_ahead("DESC") == -1, PATIENCE)
    assert hours_ahead("ASC") == 1
    assert rows("SELECT count(*), max(seq) FROM step_metrics WHERE attempt = 1") == written, "no row by the old token"
    reward = http.get(f"/v1/jobs/{run.job_id}/metrics?names=reward").json()["series"]["reward"]
    assert reward["step"] == list(range(1, len(reward["step"]) + 1)), "no gap and no double"
    http.post(f"/v1/jobs/{run.job_id}/cancel").raise_for_status()
    wait_until(lambda: job(http, run.job_id)["status"] == "cancelled", PATIENCE)
    assert statuses(http, run.job_id) == ["queued", "running", "queued", "running", "cancelled"]
    assert not run_processes(run.folder)


def test_redis_may_forget_what_is_queued_and_restart_in_mid_run(
    record: Settings, start_worker: StartWorker, spec: Spec, tmp_path: Path
) -> None:
    redis = embedded.Redis(tmp_path)
    redis.start()
    # The worker finds nothing by itself: what runs was told to it by a message.
    service = {"MHPO_REDIS_URL": redis.url, "MHPO_POLL_SECONDS": "3600", "MHPO_HINT_SECONDS": "1"}
    try:
        with api_server(tmp_path / "api.log", **CLOCKS | service) as api, api.client() as http:
            queued = submit(http, {**spec, "steps": 60})
            wait_until(lambda: rows("SELECT count(*) FROM outbox") == [(0,)])
            with Redis.from_url(redis.url) as broker:
                broker.flushall()
            start_worker("first", **service)
            wait_until(lambda: recorded_steps(http, queued) > 0, PATIENCE)
            assert redis.process is not None
            redis.process.kill()
            redis.process.wait()
            redis.start()
            other = submit(http, {**spec, "steps": 1})
            for job_id in (queued, other):
                assert wait_for(http, job_id, "succeeded")["attempt"] == 1
    finally:
        redis.ask_to_stop()
        redis.finish()
