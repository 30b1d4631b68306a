"""A supervised process over a real record: what it writes is recorded once, and its end is told as it was."""

import json
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import psutil
import pytest
from sqlalchemy import select, text, update

from api.database import engine, transaction
from api.models import Checkpoint, Evaluation, Job, Sample, Status
from api.record import LeaseLostError, reap, request_cancel, request_pause
from api.settings import Settings, settings
from cli.embedded import Servers
from tests.conftest import wait_until
from tests.worker.jobs import (
    END,
    FOREVER,
    PROGRAM,
    STOPPED,
    SUCCEEDED,
    Act,
    claimed,
    event,
    events,
    failed,
    job,
    metrics,
    processes,
    queue_job,
    rewards,
    sample,
    statuses,
    work,
)


def test_everything_that_a_run_writes_is_recorded(quick: Settings) -> None:
    job_id = queue_job(
        [
            {"append": {"samples/step_1.jsonl": sample("p-1") + "torn\n" + sample("p-2")}},
            {"append": {"events.jsonl": event("phase", phase="rollout")}},
            {"append": {"metrics.jsonl": metrics(1) + metrics(2, reward=0.75)}},
            {"append": {"events.jsonl": event("checkpoint", step=2, path="checkpoints/step_2", final=True)}},
            {"say": "hello"},
            *END,
        ],
        benchmarks=True,
    )
    work(job_id)
    assert (job(job_id).status, job(job_id).status_reason, job(job_id).step) == (Status.SUCCEEDED, None, 2)
    assert rewards(job_id) == {(1, 1): 0.5, (1, 2): 0.75}
    with transaction() as session:
        samples = session.scalars(select(Sample).order_by(Sample.position)).all()
        (checkpoint,) = session.scalars(select(Checkpoint)).all()
        evaluations = session.scalars(select(Evaluation).order_by(Evaluation.step)).all()
    assert [(row.problem_id, row.completions[0]["text"]) for row in samples] == [("p-1", "a\ufffdb"), ("p-2", "a\ufffdb")]
    assert (checkpoint.step, checkpoint.path, checkpoint.final) == (2, "checkpoints/step_2", True)
    folder = quick.run_folder(job_id)
    assert [(row.step, row.spec["model"]["path"]) for row in evaluations] == [
        (0, "base"),
        (2, str(folder / "checkpoints/step_2")),
    ]
    assert "samples/step_1.jsonl: 1 unreadable" in events(job_id, "warning")[0].message
    assert (folder / f"{PROGRAM}.log").read_text() == "hello\n"
    assert json.loads((folder / "config.json").read_text()) == job(job_id).resolved_spec


def test_lines_appear_while_the_run_goes_on(quick: Settings, background: Callable[[str], Future[None]]) -> None:
    job_id = queue_job(
        [
            {"append": {"events.jsonl": event("phase", phase="learning"), "metrics.jsonl": metrics(1) + '{"step": 2, "ti'}},
            {"wait_for": "go"},
            {"append": {"metrics.jsonl": 'me": 1760000000.0, "metrics": {"reward": 0.25}}\n'}},
            *END,
        ]
    )
    running = background(job_id)
    wait_until(lambda: job(job_id).phase == "learning" and rewards(job_id) == {(1, 1): 0.5})
    assert job(job_id).status is Status.RUNNING
    (quick.run_folder(job_id) / "go").touch()
    running.result(30)
    assert rewards(job_id) == {(1, 1): 0.5, (1, 2): 0.25}


@pytest.mark.parametrize(
    ("acts", "status", "reason"),
    [
        ([{"result": failed("user", "bad_data", "Row 3.")}, {"exit": 78}], Status.FAILED, ("bad_data", "user", "Row 3.")),
        ([{"result": failed("system", "nan", "NaN.")}, {"exit": 70}], Status.FAILED, ("nan", "system", "NaN.")),
        (
            [{"result": failed("infra", "disk_full", "No room.")}, {"exit": 74}],
            Status.QUEUED,
            ("disk_full", "infra", "No room."),
        ),
        ([{"say": "No space left"}, {"exit": 74}], Status.QUEUED, ("disk_full", "infra", "No space left")),
        ([{"say": "Traceback: oh"}, {"exit": 70}], Status.FAILED, (f"{PROGRAM}_error", "system", "oh")),
        (
            [{"say": "O"}, {"signal": "SIGKILL"}],
            Status.QUEUED,
            (f"{PROGRAM}_crashed", "infra", "SIGKILL. The log ends:\nO"),
        ),
        ([{"exit": 1}], Status.QUEUED, (f"{PROGRAM}_crashed", "infra", "exit code 1")),
        ([{"exit": 0}], Status.QUEUED, (f"{PROGRAM}_crashed", "infra", "without a result")),
        ([{"exit": 75}], Status.QUEUED, (f"{PROGRAM}_crashed", "infra", "without being asked")),
    ],
)
def test_an_exit_code_becomes_a_status_with_its_reason(
    quick: Settings, acts: list[Act], status: Status, reason: tuple[str, str, str]
) -> None:
    job_id = queue_job(acts)
    work(job_id)
    ended = job(job_id)
    assert ended.status is status
    assert ended.status_reason is not None
    assert (ended.status_reason["code"], ended.status_reason["fault"]) == reason[:2]
    assert reason[2] in ended.status_reason["message"]


def test_attempts_that_crash_are_bounded(quick: Settings) -> None:
    job_id = queue_job([{"signal": "SIGSEGV"}])
    for _ in range(quick.max_attempts):
        assert job(job_id).status is Status.QUEUED
        work(job_id)
    assert job(job_id).status is Status.FAILED
    assert statuses(job_id) == ["queued", *["running", "queued"] * (quick.max_attempts - 1), "running", "failed"]


def test_an_old_result_is_not_taken_for_a_new_one(quick: Settings) -> None:
    job_id = queue_job([{"exit": 0}])
    quick.run_folder(job_id).mkdir(parents=True)
    (quick.run_folder(job_id) / "result.json").write_text(json.dumps(SUCCEEDED))
    work(job_id)
    assert job(job_id).status is Status.QUEUED


@pytest.mark.parametrize(
    "on_term",
    [
        pytest.param(STOPPED, id="stops with a checkpoint"),
        pytest.param(END, id="ends in the same moment"),
        pytest.param("ignore", id="has to be killed"),
        pytest.param(None, id="dies of the signal"),
    ],
)
def test_cancel_while_running(quick: Settings, background: Callable[[str], Future[None]], on_term: Any) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], on_term)
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    with transaction() as session:
        assert request_cancel(session, job_id) is Status.RUNNING
    running.result(30)
    assert job(job_id).status is Status.CANCELLED
    assert statuses(job_id) == ["queued", "running", "cancelled"]
    assert not processes(job_id)


@pytest.mark.parametrize(
    ("on_term", "status"),
    [
        pytest.param(STOPPED, Status.PAUSED, id="stops with a checkpoint"),
        pytest.param(END, Status.SUCCEEDED, id="ends in the same moment"),
        pytest.param("ignore", Status.PAUSED, id="has to be killed"),
        pytest.param([{"signal": "SIGSEGV"}], Status.PAUSED, id="crashes"),
    ],
)
def test_pause_while_running(quick: Settings, background: Callable[[str], Future[None]], on_term: Any, status: Status) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], on_term)
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    with transaction() as session:
        assert request_pause(session, job_id) is Status.RUNNING
    running.result(30)
    assert (job(job_id).status, job(job_id).crashes, job(job_id).lease_token) == (status, 0, None)
    assert statuses(job_id) == ["queued", "running", status]
    assert not processes(job_id)


@pytest.mark.slow
def test_cancel_as_the_run_ends_gives_one_terminal_state(quick: Settings, background: Callable[[str], Future[None]]) -> None:
    for _ in range(5):
        job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, {"wait_for": "go"}, *END])
        running = background(job_id)
        wait_until(lambda job_id=job_id: rewards(job_id))  # type: ignore[misc]
        (quick.run_folder(job_id) / "go").touch()
        with transaction() as session:
            if job(job_id).status is Status.RUNNING:
                request_cancel(session, job_id)
        running.result(30)
        assert statuses(job_id)[:2] == ["queued", "running"]
        assert statuses(job_id)[2:] in (["cancelled"], ["succeeded"])


def test_a_lost_lease_kills_the_process_and_writes_nothing(quick: Settings, background: Callable[[str], Future[None]]) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], on_term="ignore")
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    with transaction() as session:
        session.execute(text("UPDATE jobs SET lease_expires_at = now() - interval '1 second'"))
        assert reap(session, Job)[Status.QUEUED] == [job_id]
    with pytest.raises(LeaseLostError):
        running.result(30)
    assert not processes(job_id)
    assert job(job_id).status is Status.QUEUED
    assert statuses(job_id) == ["queued", "running", "queued"]


def test_what_a_dead_worker_left_unread_is_read_by_the_next(quick: Settings) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": "\n" + metrics(3, reward=0.125)}}, *END])
    claimed(job_id)
    folder = quick.run_folder(job_id)
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(metrics(1, 2, 3) + '{"step": 4, "tim')
    with transaction() as session:
        session.execute(update(Job).values(lease_expires_at=text("now() - interval '1 second'")))
        reap(session, Job)
    work(job_id)
    assert rewards(job_id) == {(2, 1): 0.5, (2, 2): 0.5, (2, 3): 0.125}
    assert "metrics.jsonl: 1 unreadable" in events(job_id, "warning")[0].message


def test_a_resumed_job_is_back_at_its_checkpoint(quick: Settings) -> None:
    """The step of every event here is 2."""
    old = metrics(1, 2, 3).replace("1760000000.0", "1750000000.0")
    job_id = queue_job([{"append": {"metrics.jsonl": old, "events.jsonl": event("resumed")}}, *END])
    work(job_id)
    assert job(job_id).step == 2
    assert sorted(step for _, step in rewards(job_id)) == [1, 2, 3]


def restart(servers: Servers, while_down: Callable[[], object]) -> None:
    """Stop PostgreSQL with a signal that breaks every connection, and start it again."""
    process = servers.postgres.process
    assert process is not None
    os.kill(process.pid, signal.SIGINT)
    process.wait(30)
    try:
        while_down()
    finally:
        servers.postgres.start()
        engine().dispose()


def test_a_short_database_outage_costs_nothing(
    quick: Settings, servers: Servers, background: Callable[[str], Future[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MHPO_LEASE_SECONDS", "60")  # longer than a busy machine takes to restart the server
    settings.cache_clear()
    job_id = queue_job(
        [
            {"append": {"metrics.jsonl": metrics(1)}},
            {"wait_for": "down"},
            {"append": {"metrics.jsonl": metrics(2)}},
            *END,
        ]
    )
    running = background(job_id)
    wait_until(lambda: rewards(job_id))

    def end_in_the_dark() -> None:
        (quick.run_folder(job_id) / "down").touch()
        wait_until(lambda: not processes(job_id))

    restart(servers, end_in_the_dark)
    running.result(60)
    assert rewards(job_id) == {(1, 1): 0.5, (1, 2): 0.5}
    assert statuses(job_id) == ["queued", "running", "succeeded"]


@pytest.mark.slow
def test_an_outage_longer_than_the_lease_ends_the_process(
    quick: Settings, servers: Servers, background: Callable[[str], Future[None]]
) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], on_term="ignore")
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    restart(servers, lambda: wait_until(lambda: not processes(job_id)))
    with pytest.raises(LeaseLostError):
        running.result(30)
    assert job(job_id).status is Status.RUNNING, "the reaper's to take back, once the lease is over by the database's clock"


@pytest.mark.slow
def test_a_database_that_hangs_does_not_keep_the_process_alive(
    quick: Settings, servers: Servers, background: Callable[[str], Future[None]]
) -> None:
    job_id = queue_job([{"append": {"metrics.jsonl": metrics(1)}}, FOREVER], on_term="ignore")
    running = background(job_id)
    wait_until(lambda: rewards(job_id))
    assert servers.postgres.process is not None
    server = psutil.Process(servers.postgres.process.pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.suspend()
    try:
        wait_until(lambda: not processes(job_id))
    finally:
        for process in family:
            process.resume()
    with pytest.raises(LeaseLostError):
        running.result(30)


def test_secrets_of_the_service_stay_out_of_the_process(quick: Settings, background: Callable[[str], Future[None]]) -> None:
    job_id = queue_job([FOREVER])
    running = background(job_id)
    wait_until(lambda: processes(job_id))
    environment = processes(job_id)[0].environ()
    with transaction() as session:
        request_cancel(session, job_id)
    running.result(30)
    assert "PATH" in environment
    assert not environment.keys() & {"MHPO_DATABASE_URL", "MHPO_REDIS_URL"}


def test_the_config_is_written_once(quick: Settings) -> None:
    job_id = queue_job([{"signal": "SIGKILL"}])
    work(job_id)
    config = quick.run_folder(job_id) / "config.json"
    written = config.stat().st_mtime_ns
    work(job_id)
    assert config.stat().st_mtime_ns == written
    assert [path.name for path in Path(config.parent).glob("*.partial")] == []
