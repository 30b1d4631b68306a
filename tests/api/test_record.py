"""Guarded changes of status: claims, leases, ends."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import event, text

from api import outbox
from api.database import transaction
from api.models import TERMINAL, Evaluation, Job, ModelKind, Phase, Status
from api.reason import CANCELLED, WORKER_LOST, Fault, Reason
from api.record import (
    Claim,
    JobEndedError,
    Lease,
    LeaseLostError,
    UnknownJobError,
    WrongStatusError,
    claim_evaluation,
    claim_job,
    claim_next,
    finish,
    heartbeat,
    hold,
    reap,
    request_cancel,
    request_pause,
    request_resume,
    requeue,
    schedule_evaluation,
    set_phase,
)
from api.settings import Settings
from api.telling import add_event
from tests.api.conftest import claimed, expire_leases, rows, statuses
from tests.conftest import wait_until

NewJob = Callable[..., str]
Running = Callable[..., Claim]
DRAINED = Reason("drained", Fault.INFRA, "The worker was shut down.", retryable=True)


def status_of(job_id: str) -> Status:
    return Status(rows("SELECT status FROM jobs WHERE id = :job_id", job_id=job_id)[0][0])


def test_a_job_is_created_with_its_event_and_its_hint(new_job: NewJob) -> None:
    job_id = new_job()
    assert rows("SELECT status, phase, attempt, steps FROM jobs") == [("queued", None, 0, 10)]
    assert statuses(job_id) == ["queued"]
    assert rows("SELECT task, key FROM outbox") == [("worker.tasks.run_job", job_id)]


def test_of_many_claims_at_once_one_succeeds(new_job: NewJob) -> None:
    job_id, barrier = new_job(), Barrier(8)

    def claim(number: int) -> Claim | None:
        with transaction() as session:
            barrier.wait()
            return claim_job(session, job_id, f"worker-{number}")

    with ThreadPoolExecutor(8) as threads:
        claims = [claim for claim in threads.map(claim, range(8)) if claim is not None]
    assert len(claims) == 1
    assert claims[0].attempt == 1
    assert statuses(job_id) == ["queued", "running"]


def test_the_claim_carries_the_spec_that_runs(running: Running) -> None:
    claim = running()
    assert claim.spec["rollout"]["group_size"] == 2
    assert claim.spec["optimizer"]["betas"] == [0.9, 0.999]


def test_a_heartbeat_extends_the_lease_by_the_clock_of_the_database(running: Running) -> None:
    claim = running()
    expire_leases()
    with transaction() as session:
        assert heartbeat(session, claim) is Lease.HELD
    assert rows("SELECT lease_expires_at > now() + interval '50 seconds' FROM jobs") == [(True,)]


def test_a_holder_of_a_stale_token_changes_nothing(running: Running) -> None:
    stale = running()
    with transaction() as session:
        assert requeue(session, stale, WORKER_LOST, crashed=True) is Status.QUEUED
    current = claimed(stale.job_id, "worker-2")
    before = rows("SELECT * FROM jobs")
    with transaction() as session:
        assert heartbeat(session, stale) is Lease.LOST
        assert finish(session, stale, Status.SUCCEEDED, None) is False
        assert requeue(session, stale, WORKER_LOST, crashed=True) is None
        with pytest.raises(LeaseLostError):
            set_phase(session, stale, Phase.ROLLOUT)
    assert rows("SELECT * FROM jobs") == before
    with transaction() as session:
        assert heartbeat(session, current) is Lease.HELD


@pytest.mark.parametrize("fault", Fault)
@pytest.mark.parametrize("status", [Status.QUEUED, Status.PAUSED, Status.CANCELLED, Status.FAILED])
def test_every_reason_says_what_to_do(status: Status, fault: Fault) -> None:
    assert Reason("code", fault, "It happened.").as_json(status)["hint"]


def test_a_finished_job_never_changes(running: Running) -> None:
    claim = running()
    with transaction() as session:
        assert finish(session, claim, Status.SUCCEEDED, None)
    before = rows("SELECT * FROM jobs")
    with transaction() as session:
        with pytest.raises(JobEndedError):
            request_cancel(session, claim.job_id)
        assert finish(session, claim, Status.FAILED, WORKER_LOST) is False
        assert claim_job(session, claim.job_id, "worker-2") is None
        assert heartbeat(session, claim) is Lease.LOST
    assert rows("SELECT * FROM jobs") == before
    assert statuses(claim.job_id) == ["queued", "running", "succeeded"]


def test_finish_takes_only_terminal_statuses(running: Running) -> None:
    claim = running()
    with transaction() as session, pytest.raises(ValueError, match="queued"):
        finish(session, claim, Status.QUEUED, None)


def test_a_queued_job_is_cancelled_at_once(new_job: NewJob) -> None:
    job_id = new_job()
    with transaction() as session:
        assert request_cancel(session, job_id) is Status.CANCELLED
        assert claim_job(session, job_id, "worker-1") is None
    assert rows("SELECT status, status_reason ->> 'fault', finished_at IS NOT NULL FROM jobs") == [("cancelled", "user", True)]


def test_a_running_job_is_asked_once_and_stays_in_its_phase(running: Running) -> None:
    claim = running()
    with transaction() as session:
        assert request_cancel(session, claim.job_id) is Status.RUNNING
        assert request_cancel(session, claim.job_id) is Status.RUNNING
        assert heartbeat(session, claim) is Lease.CANCEL_REQUESTED
        set_phase(session, claim, Phase.CHECKPOINTING)
    assert rows("SELECT status, phase FROM jobs") == [("running", "cancelling")]
    assert rows("SELECT count(*) FROM events WHERE type = 'cancel_requested'") == [(1,)]
    with transaction() as session:
        assert finish(session, claim, Status.CANCELLED, CANCELLED)
    assert rows("SELECT status, phase, lease_token FROM jobs") == [("cancelled", None, None)]


def test_cancelling_what_does_not_exist_is_an_error(record: Settings) -> None:
    with transaction() as session, pytest.raises(UnknownJobError):
        request_cancel(session, "job-aaaaaaaaaaaaaaaaaaaaaaaa")


def test_cancel_against_finish_gives_exactly_one_end(running: Running) -> None:
    for _ in range(10):
        claim, barrier = running(), Barrier(2)

        def end(claim: Claim = claim, barrier: Barrier = barrier) -> bool:
            barrier.wait()
            with transaction() as session:
                return finish(session, claim, Status.SUCCEEDED, None)

        def cancel(claim: Claim = claim, barrier: Barrier = barrier) -> bool:
            barrier.wait()
            try:
                with transaction() as session:
                    request_cancel(session, claim.job_id)
            except JobEndedError:
                return False
            return True

        with ThreadPoolExecutor(2) as threads:
            ended, _asked = threads.submit(end), threads.submit(cancel)
            assert ended.result()
            _asked.result()
        assert status_of(claim.job_id) is Status.SUCCEEDED
        assert [status for status in statuses(claim.job_id) if status in TERMINAL] == ["succeeded"]


def test_cancel_against_claim_leaves_no_job_that_runs_unasked(new_job: NewJob) -> None:
    for _ in range(10):
        job_id, barrier = new_job(), Barrier(2)

        def claim(job_id: str = job_id, barrier: Barrier = barrier) -> Claim | None:
            barrier.wait()
            with transaction() as session:
                return claim_job(session, job_id, "worker-1")

        def cancel(job_id: str = job_id, barrier: Barrier = barrier) -> Status:
            barrier.wait()
            with transaction() as session:
                return request_cancel(session, job_id)

        with ThreadPoolExecutor(2) as threads:
            taken, asked = threads.submit(claim), threads.submit(cancel)
            won = taken.result()
            assert asked.result() is (Status.CANCELLED if won is None else Status.RUNNING)
        with transaction() as session:
            assert won is None or heartbeat(session, won) is Lease.CANCEL_REQUESTED


def test_a_crash_is_retried_until_the_attempts_are_spent(running: Running) -> None:
    claim = running()
    for expected in (Status.QUEUED, Status.QUEUED, Status.FAILED):
        with transaction() as session:
            assert requeue(session, claim, WORKER_LOST, crashed=True) is expected
        if expected is Status.QUEUED:
            claim = claimed(claim.job_id)
    assert rows("SELECT status, attempt, status_reason ->> 'code' FROM jobs") == [("failed", 3, "worker_lost")]
    assert rows("SELECT count(*) FROM outbox") == [(3,)]


def test_being_shut_down_spends_no_attempt(running: Running) -> None:
    claim = running()
    for _ in range(5):
        with transaction() as session:
            assert requeue(session, claim, DRAINED, crashed=False) is Status.QUEUED
        claim = claimed(claim.job_id)
    assert rows("SELECT attempt, crashes, phase FROM jobs") == [(6, 0, "recovering")]


def test_an_expired_lease_is_taken_back_and_a_live_one_is_not(running: Running) -> None:
    silent = running()
    expire_leases()
    alive = running()
    with transaction() as session:
        assert reap(session, silent.table)[Status.QUEUED] == [silent.job_id]
        assert heartbeat(session, alive) is Lease.HELD
        assert heartbeat(session, silent) is Lease.LOST


def test_a_lease_that_expires_during_a_look_is_left_to_the_next_look(running: Running) -> None:
    claim, statements = running(), 0

    def expire_before_the_last_update(*arguments: Any) -> None:
        nonlocal statements
        if arguments[2].startswith("UPDATE jobs"):
            statements += 1
            if statements == 4:
                expire_leases()

    with transaction() as session:
        event.listen(session.connection(), "before_cursor_execute", expire_before_the_last_update)
        moved = reap(session, claim.table)
    assert statements == 4
    assert not any(moved.values())
    with transaction() as session:
        assert reap(session, claim.table)[Status.QUEUED] == [claim.job_id]
    assert rows("SELECT crashes FROM jobs") == [(1,)]


def test_a_holder_that_froze_in_mid_transaction_keeps_no_other_job_from_being_taken_back(running: Running) -> None:
    frozen, silent = running(), running()
    expire_leases()
    with transaction() as session:
        hold(session, frozen)
        with transaction() as other:
            assert reap(other, Job)[Status.QUEUED] == [silent.job_id]
        limits = rows("SELECT current_setting('idle_in_transaction_session_timeout'), current_setting('transaction_timeout')")
    assert limits == [("30s", "45s")], "after that its own is taken back too"
    with transaction() as session:
        assert reap(session, Job)[Status.QUEUED] == [frozen.job_id]


def test_a_silent_worker_whose_job_was_to_be_cancelled_leaves_it_cancelled(running: Running) -> None:
    claim = running()
    with transaction() as session:
        request_cancel(session, claim.job_id)
    expire_leases()
    with transaction() as session:
        assert reap(session, claim.table)[Status.CANCELLED] == [claim.job_id]
    assert status_of(claim.job_id) is Status.CANCELLED


def test_a_queued_job_is_paused_at_once_and_resumed(new_job: NewJob) -> None:
    job_id = new_job()
    for _ in range(2):
        assert pause(job_id) is Status.PAUSED
    with transaction() as session:
        assert claim_job(session, job_id, "worker-1") is None
    assert rows("SELECT status, status_reason ->> 'code', pause_requested FROM jobs") == [("paused", "paused", False)]
    assert resume(job_id) is Status.QUEUED
    assert rows("SELECT status, phase, status_reason FROM jobs") == [("queued", None, None)]
    assert statuses(job_id) == ["queued", "paused", "queued"]
    assert rows("SELECT count(*) FROM outbox") == [(2,)]


def test_a_running_job_is_asked_to_pause_once_and_its_worker_makes_it_so(running: Running) -> None:
    claim = running()
    for _ in range(2):
        assert pause(claim.job_id) is Status.RUNNING
    with transaction() as session:
        assert heartbeat(session, claim) is Lease.PAUSE_REQUESTED
        set_phase(session, claim, Phase.CHECKPOINTING)
    assert rows("SELECT status, phase, pause_requested FROM jobs") == [("running", "pausing", True)]
    assert rows("SELECT count(*) FROM events WHERE type = 'pause_requested'") == [(1,)]
    with pytest.raises(WrongStatusError, match="running and still pausing"):
        resume(claim.job_id)
    with transaction() as session:
        assert requeue(session, claim, DRAINED, crashed=False) is Status.PAUSED
    columns = "status, phase, lease_token, lease_owner, pause_requested, crashes"
    assert rows(f"SELECT {columns} FROM jobs") == [("paused", None, None, None, False, 0)]
    resume(claim.job_id)
    assert rows("SELECT phase, attempt FROM jobs") == [("recovering", 1)]
    assert claimed(claim.job_id).attempt == 2


def test_a_crash_while_pausing_ends_in_paused_whatever_attempts_are_left(running: Running) -> None:
    claim = running()
    for _ in range(2):
        with transaction() as session:
            requeue(session, claim, WORKER_LOST, crashed=True)
        claim = claimed(claim.job_id)
    pause(claim.job_id)
    expire_leases()
    with transaction() as session:
        assert reap(session, claim.table)[Status.PAUSED] == [claim.job_id]
        assert heartbeat(session, claim) is Lease.LOST
    [(status, message)] = rows("SELECT status, status_reason ->> 'message' FROM jobs")
    assert (status, message) == ("paused", "Paused on request. The worker stopped sending heartbeats.")
    resume(claim.job_id)
    assert rows("SELECT crashes FROM jobs") == [(0,)], "who resumes a job gives it all its attempts"


def test_cancel_while_pausing_wins(running: Running) -> None:
    claim = running()
    pause(claim.job_id)
    with transaction() as session:
        request_cancel(session, claim.job_id)
        assert heartbeat(session, claim) is Lease.CANCEL_REQUESTED
    with pytest.raises(WrongStatusError, match="being cancelled"):
        pause(claim.job_id)
    with transaction() as session:
        assert requeue(session, claim, DRAINED, crashed=False) is Status.CANCELLED


def test_a_paused_job_is_cancelled_at_once(new_job: NewJob) -> None:
    job_id = new_job()
    pause(job_id)
    assert cancel(job_id) is Status.CANCELLED
    for verb in (pause, resume):
        with pytest.raises(JobEndedError):
            verb(job_id)


def test_a_run_that_ends_although_it_was_to_pause_has_ended(running: Running) -> None:
    claim = running()
    pause(claim.job_id)
    with transaction() as session:
        assert finish(session, claim, Status.SUCCEEDED, None)
    assert rows("SELECT status, phase, pause_requested FROM jobs") == [("succeeded", None, False)]


def test_only_a_paused_job_is_resumed(new_job: NewJob) -> None:
    job_id = new_job()
    with pytest.raises(WrongStatusError, match="this one is queued"):
        resume(job_id)
    with pytest.raises(UnknownJobError):
        resume("job-aaaaaaaaaaaaaaaaaaaaaaaa")
    with pytest.raises(UnknownJobError):
        pause("job-aaaaaaaaaaaaaaaaaaaaaaaa")


def test_pause_against_claim_leaves_no_job_that_runs_unasked(new_job: NewJob) -> None:
    for _ in range(10):
        job_id, barrier = new_job(), Barrier(2)

        def claim(job_id: str = job_id, barrier: Barrier = barrier) -> Claim | None:
            barrier.wait()
            with transaction() as session:
                return claim_job(session, job_id, "worker-1")

        def ask(job_id: str = job_id, barrier: Barrier = barrier) -> Status:
            barrier.wait()
            return pause(job_id)

        with ThreadPoolExecutor(2) as threads:
            taken, asked = threads.submit(claim), threads.submit(ask)
            won = taken.result()
            assert asked.result() is (Status.PAUSED if won is None else Status.RUNNING)
        with transaction() as session:
            assert won is None or heartbeat(session, won) is Lease.PAUSE_REQUESTED


def next_job() -> str | None:
    with transaction() as session:
        claim = claim_next(session, Job, "worker-1")
    return None if claim is None else claim.id


def test_the_highest_priority_goes_first_then_the_oldest(new_job: NewJob) -> None:
    low, first, second, high = (new_job(priority=priority) for priority in (-1, 0, 0, 5))
    assert [next_job() for _ in range(5)] == [high, first, second, low, None]


def test_workers_that_look_at_once_take_different_jobs(new_job: NewJob) -> None:
    jobs, barrier = [new_job() for _ in range(8)], Barrier(8)

    def take(number: int) -> str | None:
        with transaction() as session:
            barrier.wait()
            claim = claim_next(session, Job, f"worker-{number}")
            return None if claim is None else claim.id

    with ThreadPoolExecutor(8) as threads:
        taken = [job_id for job_id in threads.map(take, range(8)) if job_id]
    rest = list(iter(next_job, None))
    assert sorted([*taken, *rest]) == sorted(jobs)
    assert len(taken) > 1, "none waits for another's row"


def test_what_another_worker_is_about_to_take_is_passed_over(new_job: NewJob) -> None:
    first, second = new_job(), new_job()
    with transaction() as session:
        taken = claim_next(session, Job, "worker-1")
        assert taken is not None
        assert (taken.id, next_job()) == (first, second)


def test_after_a_crash_a_job_waits_twice_as_long_each_time(running: Running) -> None:
    claim = running()
    for expected in (10.0, 20.0):
        with transaction() as session:
            requeue(session, claim, WORKER_LOST, crashed=True)
        [(wait, hinted)] = rows(
            "SELECT extract(epoch FROM jobs.not_before - queued_at)::float, outbox.not_before = jobs.not_before"
            " FROM jobs JOIN outbox ON key = jobs.id ORDER BY outbox.id DESC LIMIT 1"
        )
        assert (wait, hinted) == (expected, True)
        assert next_job() is None
        with transaction() as session:
            session.execute(text("UPDATE jobs SET not_before = now()"))
        claim = again(claim.job_id)
    assert rows("SELECT not_before FROM jobs") == [(None,)]
    with transaction() as session:
        requeue(session, claim, DRAINED, crashed=False)
    assert next_job() == claim.job_id, "being shut down costs no wait"


def again(job_id: str) -> Claim:
    with transaction() as session:
        claim = claim_next(session, Job, "worker-2")
    assert claim is not None
    assert claim.id == job_id
    return claim


def test_a_hint_is_published_when_its_job_is_due(running: Running) -> None:
    claim = running()
    outbox.drain()
    with transaction() as session:
        requeue(session, claim, WORKER_LOST, crashed=True)
    assert outbox.drain() == 0
    with transaction() as session:
        session.execute(text("UPDATE outbox SET not_before = now()"))
    assert outbox.drain() == 1


def test_a_job_is_resumed_without_the_wait_of_its_crash(running: Running) -> None:
    claim = running()
    with transaction() as session:
        requeue(session, claim, WORKER_LOST, crashed=True)
    pause(claim.job_id)
    resume(claim.job_id)
    assert next_job() == claim.job_id


def test_an_evaluation_has_the_priority_of_its_job(new_job: NewJob, tmp_path_sums: str) -> None:
    for priority in (0, 7):
        new_job(priority=priority, evaluation={"benchmarks": [tmp_path_sums]})
    with transaction() as session:
        claim = claim_next(session, Evaluation, "evaluator-1")
    assert claim is not None
    assert rows("SELECT priority FROM jobs WHERE id = :job_id", job_id=claim.job_id) == [(7,)]


def test_the_base_model_is_evaluated_and_its_result_kept(running: Running, tmp_path_sums: str) -> None:
    job = running(evaluation={"benchmarks": [tmp_path_sums], "samples": 2})
    [(evaluation_id, kind, step)] = rows("SELECT id, model_kind, step FROM evaluations")
    assert (kind, step) == ("base", 0)
    with transaction() as session:
        claim = claim_evaluation(session, evaluation_id, "evaluator-1")
        assert claim is not None
        assert (claim.job_id, claim.spec["samples"]) == (job.job_id, 2)
        assert claim.spec["model"]["path"] == job.spec["model"]["path"]
        assert finish(session, claim, Status.SUCCEEDED, None, {"benchmarks": {"sums": {"avg": 0.5}}})
    assert rows("SELECT status, result -> 'benchmarks' -> 'sums' ->> 'avg' FROM evaluations") == [("succeeded", "0.5")]
    assert status_of(job.job_id) is Status.RUNNING


def test_events_of_an_evaluation_name_the_model(running: Running, tmp_path_sums: str) -> None:
    job = running(evaluation={"benchmarks": [tmp_path_sums]})
    with transaction() as session:
        scheduled = schedule_evaluation(session, job.job_id, ModelKind.CHECKPOINT, 10, job.spec)
        assert scheduled is not None
        assert schedule_evaluation(session, job.job_id, ModelKind.CHECKPOINT, 10, job.spec) is None
        claim = claim_evaluation(session, scheduled, "evaluator-1")
        assert claim is not None
        assert finish(session, claim, Status.FAILED, Reason("engine", Fault.SYSTEM, "It broke."))
        request_cancel(session, job.job_id)
    assert rows("SELECT message FROM events WHERE type = 'evaluation' ORDER BY id") == [
        ("The evaluation of the base model is queued.",),
        ("The evaluation of the checkpoint of step 10 is queued.",),
        ("The evaluation of the checkpoint of step 10 is running.",),
        ("The evaluation of the checkpoint of step 10 has failed. It broke.",),
        ("The evaluation of the base model is cancelled. Cancelled on request.",),
    ]


def test_no_event_appears_behind_one_with_a_higher_id(running: Running, tmp_path_sums: str) -> None:
    """Readers go on behind the last id that they saw; ids are given before the commit that shows them."""
    job = running(evaluation={"benchmarks": [tmp_path_sums]})
    [(evaluation_id,)] = rows("SELECT id FROM evaluations")
    with ThreadPoolExecutor(1) as thread, transaction() as session:
        assert claim_evaluation(session, evaluation_id, "evaluator-1") is not None
        writer = thread.submit(write_event, job)
        wait_until(lambda: writer.done() or rows(WAITING) == [(1,)])
        assert not writer.done()
        session.commit()
        writer.result()
    assert [kind for (kind,) in rows("SELECT type FROM events ORDER BY id")][-2:] == ["evaluation", "warning"]


def test_a_cancel_waits_for_an_evaluation_that_ends_without_stopping_it(running: Running, tmp_path_sums: str) -> None:
    job = running(evaluation={"benchmarks": [tmp_path_sums]})
    [(evaluation_id,)] = rows("SELECT id FROM evaluations")
    with transaction() as session:
        claim = claim_evaluation(session, evaluation_id, "evaluator-1")
    assert claim is not None
    with ThreadPoolExecutor(1) as thread, transaction() as session:
        assert heartbeat(session, claim) is Lease.HELD
        canceller = thread.submit(cancel, job.job_id)
        wait_until(lambda: rows(WAITING) == [(1,)])
        assert finish(session, claim, Status.SUCCEEDED, None, {})
        session.commit()
        assert canceller.result() is Status.RUNNING
    assert rows("SELECT status FROM evaluations") == [("succeeded",)]


WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


def write_event(claim: Claim) -> None:
    with transaction() as session:
        hold(session, claim)
        add_event(session, claim.job_id, claim.attempt, "warning", "Look out.")


def cancel(job_id: str) -> Status:
    with transaction() as session:
        return request_cancel(session, job_id)


def pause(job_id: str) -> Status:
    with transaction() as session:
        return request_pause(session, job_id)


def resume(job_id: str) -> Status:
    with transaction() as session:
        return request_resume(session, job_id)


def test_a_lost_evaluation_is_queued_again_and_its_job_goes_on(running: Running, tmp_path_sums: str) -> None:
    job = running(evaluation={"benchmarks": [tmp_path_sums]})
    [(evaluation_id,)] = rows("SELECT id FROM evaluations")
    with transaction() as session:
        claim = claim_evaluation(session, evaluation_id, "evaluator-1")
    assert claim is not None
    expire_leases()
    with transaction() as session:
        assert heartbeat(session, job) is Lease.HELD
        assert reap(session, Evaluation)[Status.QUEUED] == [evaluation_id]
        assert finish(session, claim, Status.SUCCEEDED, None, {}) is False
    assert rows("SELECT count(*) FROM outbox WHERE key = :key", key=evaluation_id) == [(2,)]


def test_cancelling_a_job_cancels_its_evaluations(new_job: NewJob, tmp_path_sums: str) -> None:
    job_id = new_job(evaluation={"benchmarks": [tmp_path_sums]})
    with transaction() as session:
        request_cancel(session, job_id)
    assert rows("SELECT status FROM evaluations") == [("cancelled",)]


@pytest.fixture
def tmp_path_sums(spec: dict[str, dict[str, str]]) -> str:
    """A benchmark file: the dataset of the spec."""
    return spec["dataset"]["path"]
