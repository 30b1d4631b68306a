"""What counts as an outage of the database, over a real one: what is waited out, and what must not be."""

import psycopg
import pytest
from sqlalchemy import exc, text

from api.database import OUTAGES, engine
from api.settings import Settings
from tests.api.conftest import rows
from tests.conftest import wait_until

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"
LOCKS = "SELECT count(*) FROM pg_locks WHERE pid = :pid AND mode = 'AccessExclusiveLock' AND granted"


@pytest.mark.parametrize(
    ("limit", "says"), [("idle_in_transaction_session", "idle-in-transaction"), ("transaction", "transaction")]
)
def test_a_session_that_was_ended_while_its_process_stood_still_is_an_outage(record: Settings, limit: str, says: str) -> None:
    with engine().connect() as frozen:
        pid = frozen.execute(text("SELECT pg_backend_pid()")).scalar_one()
        frozen.execute(text(f"SET {limit}_timeout = 50"))
        frozen.commit()
        frozen.execute(text("SELECT 1"))
        wait_until(lambda: rows(ALIVE, pid=pid) == [(0,)])
        with pytest.raises(OUTAGES) as raised:
            frozen.execute(text("SELECT 1"))
    assert f"due to {says} timeout" in str(raised.value)
    assert rows("SELECT 1") == [(1,)]


def test_a_session_that_stands_still_while_it_sends_statements_is_ended(record: Settings) -> None:
    """As a process does that freezes in the middle of `executemany`: to PostgreSQL its session is at work, not idle."""
    with engine().connect() as frozen:
        assert frozen.execute(text("SHOW transaction_timeout")).scalar_one() == "45s"
        for limit, milliseconds in (("idle_in_transaction_session", 100), ("statement", 100), ("transaction", 1000)):
            frozen.execute(text(f"SET {limit}_timeout = {milliseconds}"))
        frozen.commit()
        driver = frozen.connection.driver_connection
        assert driver is not None
        pid = driver.info.backend_pid

        def stand_still() -> None:
            with driver.pipeline():
                driver.execute("LOCK TABLE outbox")
                driver.pgconn.send_flush_request()
                driver.pgconn.flush()
                wait_until(lambda: rows(LOCKS, pid=pid) == [(1,)])
                wait_until(lambda: rows(ALIVE, pid=pid) == [(0,)])

        with pytest.raises(psycopg.OperationalError):
            stand_still()
        assert rows(LOCKS, pid=pid) == [(0,)]
        frozen.invalidate()


def test_a_statement_in_a_transaction_that_has_failed_is_a_fault_of_ours(record: Settings) -> None:
    with engine().connect() as connection:
        with pytest.raises(exc.DataError):
            connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(exc.InternalError) as raised:
            connection.execute(text("SELECT 1"))
    assert not isinstance(raised.value, OUTAGES)
