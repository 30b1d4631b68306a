"""Whose turn it is: priority then age, so that nobody waits for ever."""

from collections.abc import Callable

from sqlalchemy import text

from api.database import engine, transaction
from api.models import Job
from api.record import claim_next
from api.settings import settings
from tests.api.conftest import rows

NewJob = Callable[..., str]


def waited(job_id: str, hours: float) -> None:
    """As if the job had been made so long ago."""
    by = "make_interval(secs => :seconds)"
    move = f"UPDATE jobs SET created_at = created_at - {by}, turn_at = turn_at - {by} WHERE id = :id"
    with engine().begin() as connection:
        connection.execute(text(move), {"seconds": hours * 3600, "id": job_id})


def order() -> list[str]:
    """All queued jobs, as workers take them."""

    def next_job() -> str | None:
        with transaction() as session:
            claim = claim_next(session, Job, "worker-1")
        return None if claim is None else claim.id

    return list(iter(next_job, None))


def test_a_job_that_waits_rises_above_one_of_higher_priority(new_job: NewJob) -> None:
    """A step of priority is worth an hour: of -3 and 2, the lower has waited five hours and a bit, or not quite."""
    low = new_job(priority=-3)
    waited(low, 5.1)
    high = new_job(priority=2)
    assert order() == [low, high]
    low = new_job(priority=-3)
    waited(low, 4.9)
    high = new_job(priority=2)
    assert order() == [high, low]


def test_no_stream_of_important_jobs_holds_up_one_for_ever(new_job: NewJob) -> None:
    lowest = new_job(priority=-100)
    waited(lowest, 201)
    important = [new_job(priority=100) for _ in range(3)]
    assert order() == [lowest, *important]


def test_within_a_priority_the_oldest_goes_first(new_job: NewJob) -> None:
    jobs = [new_job(priority=7) for _ in range(5)]
    for age, job_id in enumerate(jobs):
        waited(job_id, (3 * age) % 5)
    oldest_first = [job_id for (job_id,) in rows("SELECT id FROM jobs ORDER BY created_at, id")]
    assert order() == oldest_first


def test_the_queue_is_read_by_its_index(new_job: NewJob) -> None:
    new_job()
    with engine().begin() as connection:
        connection.execute(text("SET LOCAL enable_seqscan = off"))
        query = "EXPLAIN SELECT id FROM jobs WHERE status = 'queued' AND NOT cancel_requested ORDER BY turn_at, id LIMIT 1"
        plan = "\n".join(line for (line,) in connection.execute(text(query)))
    assert "ix_jobs_queue" in plan
    assert "Sort" not in plan


def test_a_step_of_priority_is_an_hour() -> None:
    assert settings().priority_seconds == 3600
