"""Migrations produce exactly the tables of `api.models`, and can be taken back."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, make_url, pool, text
from sqlalchemy.exc import IntegrityError

from api.database import engine
from api.models import TERMINAL, Base, Status
from api.settings import Settings, settings
from migrations import schema

_CHECKS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2
"""
_TRIGGERS = """
    SELECT pg_get_triggerdef(pg_trigger.oid), regexp_replace(prosrc, '\\s+', ' ', 'g') FROM pg_trigger
    JOIN pg_proc ON pg_proc.oid = tgfoid WHERE tgname = 'keep_terminal_status' ORDER BY 1
"""
_INDEXES = "SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' AND tablename <> 'alembic_version' ORDER BY 1"


@pytest.fixture
def empty_database(record: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """A database of this test alone; `api.settings` points at it."""
    admin = create_engine(record.database_url, isolation_level="AUTOCOMMIT", poolclass=pool.NullPool)
    url = make_url(record.database_url).set(database="schema_test")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE schema_test"))
    monkeypatch.setenv("MHPO_DATABASE_URL", url.render_as_string(hide_password=False))
    settings.cache_clear()
    yield create_engine(url, poolclass=pool.NullPool)
    monkeypatch.undo()
    settings.cache_clear()
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE schema_test"))


def test_migrations_equal_the_models(empty_database: Engine) -> None:
    schema.upgrade()
    with empty_database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []
        migrated = _constraints(connection)
    schema.downgrade("base")
    with empty_database.begin() as connection:
        assert _tables(connection) == ["alembic_version"]
        Base.metadata.create_all(connection)
        # Alembic compares neither CHECK constraints, nor triggers, nor the order within an index. The triggers that notify
        # and that write webhooks are the migrations' alone; tests/api/test_streams.py and test_webhooks.py show them at work.
        assert _constraints(connection) == migrated


def test_upgrading_twice_and_coming_back_works(empty_database: Engine) -> None:
    for _ in range(2):
        schema.upgrade()
        schema.upgrade()
        with empty_database.begin() as connection:
            assert set(_tables(connection)) == {"alembic_version", *Base.metadata.tables}
        schema.downgrade("base")


@pytest.mark.parametrize("status", TERMINAL)
@pytest.mark.parametrize("table", ["jobs", "evaluations"])
def test_the_database_keeps_a_terminal_status(record: Settings, table: str, status: Status) -> None:
    insert_job_and_evaluation(engine(), "running")
    with engine().begin() as connection:
        connection.execute(text(f"UPDATE {table} SET status = :status"), {"status": status})
        connection.execute(text(f"UPDATE {table} SET attempt = 2, status = :status"), {"status": status})
    for other in set(Status) - {status, *((Status.PAUSED, Status.VALIDATING_FILES) if table == "evaluations" else ())}:
        with pytest.raises(IntegrityError, match=f"is {status}, which never changes"), engine().begin() as connection:
            connection.execute(text(f"UPDATE {table} SET status = :other"), {"other": other})
    with engine().connect() as connection:
        assert connection.execute(text(f"SELECT status, attempt FROM {table}")).all() == [(status, 2)]


def test_rows_survive_an_upgrade_and_a_downgrade(empty_database: Engine) -> None:
    """A job that runs meanwhile keeps its lease, and one that had ended can then be deleted."""
    schema.upgrade("0001")
    insert_job_and_evaluation(empty_database, "running")
    rows = "SELECT jobs.id, jobs.status, evaluations.status, jobs.lease_owner FROM jobs JOIN evaluations ON job_id = jobs.id"
    before = [("job-1", "running", "running", "worker-1")]
    schema.upgrade()
    with empty_database.connect() as connection:
        assert connection.execute(text(rows)).all() == before
        assert connection.execute(text("SELECT pause_requested, priority, parent_id FROM jobs")).all() == [(False, 0, None)]
    schema.downgrade("0001")
    with empty_database.begin() as connection:
        assert connection.execute(text(rows)).all() == before
        connection.execute(text("UPDATE jobs SET status = 'failed'"))
    schema.upgrade()
    with empty_database.begin() as connection:
        connection.execute(text("DELETE FROM jobs"))
        assert connection.execute(text(rows)).all() == []
    schema.downgrade("base")


def insert_job_and_evaluation(database: Engine, status: str) -> None:
    job = """
        INSERT INTO jobs (id, spec, resolved_spec, steps, status, lease_owner)
        VALUES ('job-1', '{}', '{}', 1, :status, 'worker-1')
    """
    evaluation = """
        INSERT INTO evaluations (id, job_id, model_kind, step, spec, status)
        VALUES ('eval-1', 'job-1', 'base', 0, '{}', :status)
    """
    with database.begin() as connection:
        connection.execute(text(job), {"status": status})
        connection.execute(text(evaluation), {"status": status})


def test_the_database_refuses_an_unknown_status(empty_database: Engine) -> None:
    schema.upgrade()
    query = "INSERT INTO jobs (id, spec, resolved_spec, steps, status) VALUES ('job-1', '{}', '{}', 1, 'lost')"
    with pytest.raises(IntegrityError, match="ck_jobs_status"), empty_database.begin() as connection:
        connection.execute(text(query))


def _constraints(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for query in (_CHECKS, _TRIGGERS, _INDEXES) for row in connection.execute(text(query))]


def _tables(connection: Connection) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    return [name for (name,) in connection.execute(text(query))]
