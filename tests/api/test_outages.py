"""What counts as an outage of the database, over a real one: what is waited out, and what must not be."""

import pytest
from sqlalchemy import exc, text

from api.database import OUTAGES, engine
from api.settings import Settings
from tests.api.conftest import rows
from tests.conftest import wait_until

ALIVE = "SELECT count(*) FROM pg_stat_activity WHERE pid = :pid"


def test_a_session_that_was_ended_while_its_process_stood_still_is_an_outage(record: Settings) -> None:
    with engine().connect() as frozen:
        pid = frozen.execute(text("SELECT pg_backend_pid()")).scalar_one()
        frozen.execute(text("SET LOCAL idle_in_transaction_session_timeout = 50"))
        wait_until(lambda: rows(ALIVE, pid=pid) == [(0,)])
        with pytest.raises(OUTAGES) as raised:
            frozen.execute(text("SELECT 1"))
    assert "idle-in-transaction" in str(raised.value)
    assert rows("SELECT 1") == [(1,)]


def test_a_statement_in_a_transaction_that_has_failed_is_a_fault_of_ours(record: Settings) -> None:
    with engine().connect() as connection:
        with pytest.raises(exc.DataError):
            connection.execute(text("SELECT 1 / 0"))
        with pytest.raises(exc.InternalError) as raised:
            connection.execute(text("SELECT 1"))
    assert not isinstance(raised.value, OUTAGES)
