"""Whatever is killed or restarted in mid-run, the job ends truthfully, computes the same and leaves no process behind."""

import os
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from api.models import Task
from api.queue import publish
from api.settings import Settings
from cli import embedded
from tests.conftest import api_server, wait_until
from tests.service.conftest import (
    CLOCKS,
    PATIENCE,
    Spec,
    StartWorker,
    Train,
    curves,
    gone,
    job,
    recorded_steps,
    resumed_at,
    run_processes,
    statuses,
    submit,
    uninterrupted,
    wait_for,
)

pytestmark = pytest.mark.slow


@pytest.fixture
def long(spec: Spec) -> Spec:
    """Some seconds of training between the first checkpoint and the last step."""
    return {**spec, "steps": 120, "checkpoints": {"every": 20}}


def trainer(http: httpx.Client, record: Settings, job_id: str, attempt: int) -> psutil.Process:
    """The trainer of a job's attempt, once it runs."""
    found: list[psutil.Process] = []

    def runs() -> bool:
        now = job(http, job_id)
        if (now["attempt"], now["status"]) == (attempt, "running"):
            found.extend(process for process in run_processes(record.run_folder(job_id)) if "trainer" in process.cmdline())
        return bool(found)

    wait_until(runs, PATIENCE)
    return found[0]


def last_complete_checkpoint(folder: Path) -> int:
    return max(int(marker.parent.name.removeprefix("step_")) for marker in folder.glob("checkpoints/step_*/COMPLETE"))


def test_a_worker_killed_in_mid_run_leaves_no_process_and_its_job_resumes(
    http: httpx.Client, train: Train, start_worker: StartWorker, long: Spec, record: Settings
) -> None:
    run = train(long, beyond=50)
    worker, job_id, folder = run.worker, run.job_id, run.folder
    processes = [*run_processes(folder), *psutil.Process(worker.pid).children(recursive=True)]
    assert len(set(processes)) >= 3, "at least a pool child, the trainer and its grader pool"
    worker.kill()
    wait_until(lambda: all(gone(process) for process in processes))
    saved = last_complete_checkpoint(folder)
    start_worker("second")
    ended = wait_for(http, job_id, "succeeded")
    assert ended["attempt"] == 2
    assert statuses(http, job_id) == ["queued", "running", "queued", "running", "succeeded"]
    assert resumed_at(http, job_id) == [saved]
    assert curves(folder) == uninterrupted(http, long, record)
    served = http.get(f"/v1/jobs/{job_id}/metrics?names=reward").json()["series"]["reward"]
    assert served["step"] == list(range(1, long["steps"] + 1)), "no gap and no double"
    assert served["value"] == [metrics["reward"] for _, metrics in sorted(curves(folder).items())]


def test_sigterm_of_a_worker_saves_and_requeues_and_the_next_worker_finishes(
    http: httpx.Client, train: Train, start_worker: StartWorker, long: Spec, record: Settings
) -> None:
    run = train(long, beyond=25)
    worker, job_id, folder = run.worker, run.job_id, run.folder
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    waiting = job(http, job_id)
    assert (waiting["status"], waiting["status_reason"]["code"]) == ("queued", "worker_stopped")
    assert not run_processes(folder)
    saved = last_complete_checkpoint(folder)
    assert saved == waiting["step"], "the last finished step, and all of it in the record"
    start_worker("second")
    assert wait_for(http, job_id, "succeeded")["attempt"] == 2
    assert resumed_at(http, job_id) == [saved]
    assert curves(folder) == uninterrupted(http, long, record)


def test_the_vllm_engine_dies_with_a_killed_worker_and_serves_until_a_stopped_one_has_saved(
    http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings
) -> None:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    spec["rollout"] = {**spec["rollout"], "engine": "vllm", "max_new_tokens": 64}
    job_id = submit(http, {**spec, "steps": 10_000, "checkpoints": {"every": 10_000}})
    folder = record.run_folder(job_id)
    first = start_worker("first")
    wait_until(lambda: recorded_steps(http, job_id) > 0, PATIENCE)
    processes = run_processes(folder)
    assert [process for process in processes if "trainer.rollout.vllm_child" in process.cmdline()]
    first.kill()
    wait_until(lambda: all(gone(process) for process in processes))

    second = start_worker("second")
    wait_until(lambda: resumed_at(http, job_id) == [0] and recorded_steps(http, job_id) > 0, PATIENCE)
    second.send_signal(signal.SIGTERM)
    assert second.wait(60) == 0
    assert not run_processes(folder)
    waiting = job(http, job_id)
    assert (waiting["status"], waiting["status_reason"]["code"]) == ("queued", "worker_stopped")
    assert last_complete_checkpoint(folder) == waiting["step"] > 0


def test_jobs_run_and_are_given_back_while_redis_is_down(
    record: Settings, start_worker: StartWorker, long: Spec, tmp_path: Path
) -> None:
    redis = embedded.Redis(tmp_path)
    redis.start()
    service = {"MHPO_REDIS_URL": redis.url, "MHPO_POLL_SECONDS": "0.5"}
    try:
        with api_server(tmp_path / "api.log", **CLOCKS, **service) as api, api.client() as http:
            worker = start_worker("first", **service)
            assert redis.process is not None
            redis.process.kill()
            redis.process.wait()
            short, job_id = submit(http, {**long, "steps": 2}), submit(http, long)
            assert wait_for(http, short, "succeeded")["attempt"] == 1
            wait_until(lambda: recorded_steps(http, job_id) > 0, PATIENCE)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(60) == 0
            waiting = job(http, job_id)
            assert (waiting["status"], waiting["status_reason"]["code"]) == ("queued", "worker_stopped")
            assert last_complete_checkpoint(record.run_folder(job_id)) == waiting["step"] > 0
            assert not run_processes(record.run_folder(job_id))
            redis.start()
            start_worker("second", **service)
            assert wait_for(http, job_id, "succeeded")["attempt"] == 2
            assert resumed_at(http, job_id) == [waiting["step"]]
    finally:
        redis.ask_to_stop()
        redis.finish()


def test_a_trainer_that_keeps_dying_fails_its_job_after_bounded_attempts(
    http: httpx.Client, start_worker: StartWorker, long: Spec, record: Settings
) -> None:
    start_worker()
    job_id = submit(http, {**long, "steps": 100_000})
    for attempt in range(1, record.max_attempts + 1):
        trainer(http, record, job_id, attempt).kill()
    reason = wait_for(http, job_id, "failed")["status_reason"]
    assert (reason["code"], reason["fault"]) == ("trainer_crashed", "infra")
    assert "SIGKILL" in reason["message"]
    assert not run_processes(record.run_folder(job_id))


def test_five_messages_and_two_workers_run_a_job_once(
    http: httpx.Client, start_worker: StartWorker, long: Spec, record: Settings
) -> None:
    job_id = submit(http, long)
    for _ in range(5):
        publish(Task.RUN_JOB, job_id)
    start_worker("first")
    start_worker("second")
    assert wait_for(http, job_id, "succeeded")["attempt"] == 1
    for _ in range(5):
        publish(Task.RUN_JOB, job_id)
    other = submit(http, {**long, "steps": 2})
    wait_for(http, other, "succeeded")
    assert statuses(http, job_id) == ["queued", "running", "succeeded"]
    lines = (record.run_folder(job_id) / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == long["steps"]


def test_the_api_may_restart_while_a_job_runs(record: Settings, start_worker: StartWorker, long: Spec, tmp_path: Path) -> None:
    start_worker()
    with api_server(tmp_path / "first.log", **CLOCKS) as api, api.client() as http:
        job_id = submit(http, long)
        wait_until(lambda: recorded_steps(http, job_id) > 0, PATIENCE)
        os.kill(api.process.pid, signal.SIGKILL)
        api.process.wait(30)
    with api_server(tmp_path / "second.log", **CLOCKS) as api, api.client() as http:
        ended = wait_for(http, job_id, "succeeded")
        assert (ended["attempt"], ended["step"]) == (1, long["steps"])
        reward = http.get(f"/v1/jobs/{job_id}/metrics?names=reward").json()["series"]["reward"]
        assert reward["step"] == list(range(1, long["steps"] + 1))
