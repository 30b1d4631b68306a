"""The relay and the reaper, in real API processes, through outages of Redis and PostgreSQL."""

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import httpx
import psutil
import pytest
from redis import Redis

from api import outbox, reaper
from api.models import Json, Task
from api.queue import waiting
from api.record import Claim
from api.settings import Settings
from cli import embedded
from tests.api.conftest import claimed, expire_leases, rows, statuses
from tests.conftest import SECONDS, ApiServer, api_server, wait_until

NewJob = Callable[..., str]
Running = Callable[..., Claim]


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[embedded.Redis]:
    """A Redis of this test, not yet started; it keeps its address over restarts."""
    server = embedded.Redis(tmp_path)
    yield server
    stop(server)


def stop(server: embedded.Redis | embedded.Postgres) -> None:
    server.ask_to_stop()
    server.finish()


def arguments(message: Json) -> list[str]:
    """The positional arguments in a Celery message."""
    positional: list[str] = json.loads(base64.b64decode(message["body"]))[0]
    return positional


def code_of(server: ApiServer, path: str) -> int:
    return httpx.get(server.url + path, timeout=SECONDS, trust_env=False).status_code


def test_the_outbox_is_published_once_and_emptied(new_job: NewJob) -> None:
    for _ in range(3):
        new_job()
    with ThreadPoolExecutor(2) as threads:
        published = [relay.result() for relay in [threads.submit(outbox.drain) for _ in range(2)]]
    assert sum(published) == 3
    assert waiting(Task.RUN_JOB) == 3
    assert rows("SELECT count(*) FROM outbox") == [(0,)]


def test_hints_carry_the_id_on_the_queue_of_their_kind(
    new_job: NewJob, spec: dict[str, Json], servers: embedded.Servers
) -> None:
    job_id = new_job(evaluation={"benchmarks": [spec["dataset"]["path"]]})
    [(evaluation_id,)] = rows("SELECT id FROM evaluations")
    outbox.drain()
    with Redis.from_url(servers.redis_url) as broker:
        [job] = [json.loads(message) for message in broker.lrange("gpu", 0, -1)]
        [evaluation] = [json.loads(message) for message in broker.lrange("eval", 0, -1)]
    assert (job["headers"]["task"], arguments(job)) == ("worker.tasks.run_job", [job_id])
    assert (evaluation["headers"]["task"], arguments(evaluation)) == ("worker.tasks.run_evaluation", [evaluation_id])


def test_a_job_committed_without_a_publish_is_published_by_the_service(new_job: NewJob, tmp_path: Path) -> None:
    new_job()  # as if the process had been killed between commit and publish
    with api_server(tmp_path / "api.log", MHPO_OUTBOX_SECONDS="0.05"):
        wait_until(lambda: waiting(Task.RUN_JOB) == 1)
        wait_until(lambda: rows("SELECT count(*) FROM outbox") == [(0,)])


def test_a_post_while_redis_is_down_is_published_when_it_is_back(
    record: Settings, spec: Json, own_redis: embedded.Redis, tmp_path: Path
) -> None:
    with api_server(tmp_path / "api.log", MHPO_REDIS_URL=own_redis.url, MHPO_OUTBOX_SECONDS="0.1") as server:
        answer = httpx.post(f"{server.url}/v1/jobs", json=spec, timeout=5, trust_env=False)
        assert answer.status_code == 201
        unready = httpx.get(f"{server.url}/readyz", timeout=SECONDS, trust_env=False)
        assert (unready.status_code, unready.json()["error"]["code"]) == (503, "not_ready")
        assert "redis" in unready.json()["error"]["message"]
        assert "database" not in unready.json()["error"]["message"]
        assert code_of(server, "/healthz") == 200
        assert rows("SELECT count(*) FROM outbox") == [(1,)]
        own_redis.start()
        with Redis.from_url(own_redis.url) as broker:
            wait_until(lambda: broker.llen("gpu") == 1)
        wait_until(lambda: code_of(server, "/readyz") == 200)


@pytest.mark.slow
def test_an_outage_of_the_database_is_answered_by_503_and_survived(servers: embedded.Servers, tmp_path: Path) -> None:
    postgres = embedded.Postgres(tmp_path)
    postgres.start()
    try:
        # The background threads look often, so that the outage meets them at work.
        often = {"MHPO_OUTBOX_SECONDS": "0.02", "MHPO_REAPER_SECONDS": "0.02"}
        with api_server(tmp_path / "api.log", MHPO_DATABASE_URL=postgres.url, **often) as server:
            assert code_of(server, "/readyz") == 503  # no schema yet
            unforeseen = httpx.get(f"{server.url}/v1/jobs", timeout=SECONDS, trust_env=False)
            assert (unforeseen.status_code, unforeseen.json()["error"]["code"]) == (500, "internal_error")
            assert unforeseen.headers["x-request-id"] in unforeseen.json()["error"]["message"]
            assert "select" not in unforeseen.text.lower()
            migrate(postgres.url)
            wait_until(lambda: code_of(server, "/v1/jobs") == 200)
            stop(postgres)
            answer = httpx.get(f"{server.url}/v1/jobs", timeout=SECONDS, trust_env=False)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "database_unavailable")
            assert answer.headers["retry-after"] == "2"
            assert "database" in httpx.get(f"{server.url}/readyz", timeout=SECONDS, trust_env=False).json()["error"]["message"]
            postgres.start()
            wait_until(lambda: code_of(server, "/readyz") == 200)
            assert code_of(server, "/v1/jobs") == 200
    finally:
        stop(postgres)


@pytest.mark.slow
def test_a_frozen_database_holds_up_nobody_who_does_not_ask_it(servers: embedded.Servers, tmp_path: Path) -> None:
    postgres = embedded.Postgres(tmp_path)
    postgres.start()
    assert postgres.process is not None
    try:
        migrate(postgres.url)
        postgres.process.send_signal(signal.SIGSTOP)
        with api_server(tmp_path / "api.log", MHPO_DATABASE_URL=postgres.url) as server, ThreadPoolExecutor(4) as threads:
            asked = [threads.submit(code_of, server, "/v1/jobs") for _ in range(4)]
            while not all(each.done() for each in asked):
                assert httpx.get(f"{server.url}/healthz", timeout=4, trust_env=False).status_code == 200
            assert {each.result() for each in asked} == {503}
    finally:
        postgres.process.send_signal(signal.SIGCONT)
        stop(postgres)


@pytest.mark.slow
def test_a_document_comes_though_the_database_is_frozen(tmp_path: Path) -> None:
    postgres = embedded.Postgres(tmp_path)
    postgres.start()
    assert postgres.process is not None
    frozen: list[psutil.Process] = []
    try:
        migrate(postgres.url)
        with api_server(tmp_path / "api.log", MHPO_DATABASE_URL=postgres.url) as server:
            assert "data-more" not in httpx.get(server.url, timeout=SECONDS, trust_env=False).text  # and is connected
            frozen = [psutil.Process(postgres.process.pid), *psutil.Process(postgres.process.pid).children()]
            for process in frozen:
                process.suspend()
            for address in ("/", "/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa"):
                answer = httpx.get(f"{server.url}{address}", timeout=SECONDS, trust_env=False)
                assert answer.status_code == 200
                assert "Loading" in answer.text
            for process in frozen:
                process.resume()
    finally:
        for process in frozen:
            if process.is_running():
                process.resume()
        stop(postgres)


def test_of_two_reapers_at_once_one_acts(running: Running) -> None:
    jobs = [running().job_id for _ in range(5)]
    expire_leases()
    barrier = Barrier(2)

    def look(_: int) -> bool:
        barrier.wait()
        return reaper.look()

    with ThreadPoolExecutor(2) as threads:
        assert any(threads.map(look, range(2)))
    for job_id in jobs:
        assert statuses(job_id) == ["queued", "running", "queued"]
    assert rows("SELECT DISTINCT crashes FROM jobs") == [(1,)]
    assert rows("SELECT count(*) FROM outbox") == [(10,)]


@pytest.mark.slow
def test_reapers_of_two_services_bring_a_lost_job_to_its_end(new_job: NewJob, tmp_path: Path) -> None:
    job_id = new_job()
    often = {"MHPO_REAPER_SECONDS": "0.05", "MHPO_OUTBOX_SECONDS": "0.05"}
    with api_server(tmp_path / "one.log", **often), api_server(tmp_path / "two.log", **often):
        for expected in ("queued", "queued", "failed"):
            wait_until(lambda: rows("SELECT status FROM jobs") == [("queued",)])
            claimed(job_id)
            expire_leases()
            wait_until(lambda expected=expected: rows("SELECT status FROM jobs") == [(expected,)])  # type: ignore[misc]
    assert statuses(job_id) == ["queued", *["running", "queued"] * 2, "running", "failed"]
    assert rows("SELECT status_reason ->> 'code', status_reason ->> 'fault' FROM jobs") == [("worker_lost", "infra")]


def test_a_queued_job_whose_message_was_lost_gets_another_and_only_one(
    new_job: NewJob, servers: embedded.Servers, tmp_path: Path
) -> None:
    new_job()
    outbox.drain()
    with Redis.from_url(servers.redis_url) as broker:
        broker.flushall()
    often = {"MHPO_REAPER_SECONDS": "0.05", "MHPO_OUTBOX_SECONDS": "0.05", "MHPO_HINT_SECONDS": "0.1"}
    with api_server(tmp_path / "api.log", **often):
        wait_until(lambda: waiting(Task.RUN_JOB) == 1)
    assert waiting(Task.RUN_JOB) + rows("SELECT count(*) FROM outbox")[0][0] == 1  # the relay has ended with the service


def migrate(url: str) -> None:
    command = [sys.executable, "-m", "migrations"]
    subprocess.run(command, env={**os.environ, "MHPO_DATABASE_URL": url}, check=True)
