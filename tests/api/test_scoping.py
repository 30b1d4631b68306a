"""A session of a caller sees and makes rows of the caller's project only; a session of no caller sees all."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session, aliased

from api.caller import CALLER, Caller
from api.database import transaction
from api.models import DEFAULT_PROJECT, Evaluation, File, Job, Json, Scope, Status
from api.preflight import plan
from api.record import UnknownJobError, create_job, request_cancel
from api.record_read import find_job, page
from api.settings import Settings
from tests.api.conftest import rows
from trainer.config import JobSpec


@contextmanager
def session_of(project: str) -> Iterator[Session]:
    token = CALLER.set(Caller(project, Scope.WRITE, None))
    try:
        with transaction() as session:
            yield session
    finally:
        CALLER.reset(token)


@pytest.fixture
def job_of(record: Settings, spec: Json) -> Callable[[str], str]:
    """Makes a job with an evaluation, by a caller of the project."""

    def make(project: str) -> str:
        asked = {**spec, "evaluation": {"benchmarks": [spec["dataset"]["path"]]}}
        with session_of(project) as session:
            return create_job(session, *plan(session, JobSpec.parse(asked)).as_json())

    return make


def test_rows_get_the_project_of_their_caller(job_of: Callable[[str], str]) -> None:
    red, blue = job_of("red"), job_of("blue")
    file = File(id="file-1", filename="a", format="jsonl", bytes=1, sha256="", rows=1, columns=[], path="a")
    with session_of("red") as session:
        session.add(file)
    assert rows("SELECT id, project FROM jobs ORDER BY project") == [(blue, "blue"), (red, "red")]
    assert rows("SELECT project FROM files") == [("red",)]
    with session_of("blue") as session:
        assert session.get(File, "file-1") is None


def test_what_no_caller_makes_is_in_the_default_project_and_what_it_reads_is_all(
    job_of: Callable[[str], str], new_job: Callable[..., str]
) -> None:
    made = {new_job(), job_of("red")}
    assert rows("SELECT count(*) FROM jobs WHERE project = :default", default=DEFAULT_PROJECT) == [(1,)]
    with transaction() as session:
        assert set(session.scalars(select(Job.id))) == made


def test_no_query_reaches_the_rows_of_another_project(job_of: Callable[[str], str]) -> None:
    red, blue = job_of("red"), job_of("blue")
    other = aliased(Job)
    with session_of("red") as session:
        assert list(session.scalars(select(other.id))) == [red]
    with session_of("blue") as session:
        assert page(session, Job, None, 10)[0] == [find_job(session, blue)]
        assert session.get(Job, red) is None
        assert list(session.scalars(select(other.id))) == [blue]
        assert session.scalar(select(func.count()).select_from(Job)) == 1
        assert list(session.scalars(select(Evaluation.job_id))) == [blue]
        assert session.scalar(select(Job.status).where(Job.id == red).with_for_update(key_share=True)) is None
        with pytest.raises(UnknownJobError):
            find_job(session, red)
        with pytest.raises(UnknownJobError):
            request_cancel(session, red)
        for change in (update(Job).values(status=Status.FAILED), update(Evaluation).values(status=Status.FAILED)):
            session.execute(change.execution_options(synchronize_session=False))
        session.execute(delete(Evaluation).execution_options(synchronize_session=False))
    assert rows("SELECT id, status FROM jobs ORDER BY project") == [(blue, "failed"), (red, "queued")]
    assert rows("SELECT job_id, status FROM evaluations") == [(red, "queued")]
