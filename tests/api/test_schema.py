"""Migrations produce exactly the tables of `api.models`, and can be taken back."""

from collections.abc import Iterator

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, make_url, pool, text
from sqlalchemy.exc import IntegrityError

from api.models import Base
from api.settings import Settings, settings
from migrations import schema

_CHECKS = """
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND conrelid::regclass::text <> 'alembic_version' ORDER BY 1, 2
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
    engine = create_engine(url, poolclass=pool.NullPool)
    yield engine
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
        # Alembic compares neither CHECK constraints nor the order within an index.
        assert _constraints(connection) == migrated


def test_upgrading_twice_and_coming_back_works(empty_database: Engine) -> None:
    for _ in range(2):
        schema.upgrade()
        schema.upgrade()
        with empty_database.begin() as connection:
            assert set(_tables(connection)) == {"alembic_version", *Base.metadata.tables}
        schema.downgrade("base")


def test_the_database_refuses_an_unknown_status(empty_database: Engine) -> None:
    schema.upgrade()
    query = "INSERT INTO jobs (id, spec, resolved_spec, steps, status) VALUES ('job-1', '{}', '{}', 1, 'lost')"
    with pytest.raises(IntegrityError, match="ck_jobs_status"), empty_database.begin() as connection:
        connection.execute(text(query))


def _constraints(connection: Connection) -> list[tuple[object, ...]]:
    return [tuple(row) for query in (_CHECKS, _INDEXES) for row in connection.execute(text(query))]


def _tables(connection: Connection) -> list[str]:
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    return [name for (name,) in connection.execute(text(query))]
