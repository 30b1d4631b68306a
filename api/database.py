"""The connection to PostgreSQL: one engine a process, one session a request or transaction."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from select import POLLIN, poll
from typing import Any

import psycopg
from psycopg.errors import IdleInTransactionSessionTimeout, TransactionTimeout
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, ExceptionContext, create_engine, event, exc, func, select
from sqlalchemy.orm import Session, sessionmaker

from api.scoping import CONNECTION, PROJECT, ScopedSession
from api.settings import settings

OUTAGES = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)  # what a database that is away or overloaded raises

_CONNECTIONS = 40  # of all API processes, besides the one that each listens on: of PostgreSQL's 100 workers want some
_KEPT = 10

KEEPALIVES = {"keepalives_idle": "10", "keepalives_interval": "5", "keepalives_count": "3"}  # seconds: a dead line is found out

OLDEST_POSTGRESQL = (17,)  # the first with transaction_timeout

# A waiting server must not hang a request: connecting, waiting for a row lock and a statement each have an end. A process that
# froze in mid-transaction must not keep its locks: its session is ended, before a worker's lease of a minute is. Nor one
# that froze while it sent a row of statements (psycopg's `executemany`), whom PostgreSQL does not count as idle.
_LIMITS = {  # milliseconds
    "lock_timeout": 10_000,
    "statement_timeout": 30_000,
    "idle_in_transaction_session_timeout": 30_000,
    "transaction_timeout": 45_000,
}
_CONNECT_ARGS = {
    "connect_timeout": 5,
    **KEEPALIVES,
    "options": " ".join(["-c timezone=UTC", *(f"-c {name}={limit}" for name, limit in _LIMITS.items())]),
}


def most_connections() -> int:
    """How many connections this process may have at once."""
    return max(_KEPT, _CONNECTIONS // settings().api_processes)


@cache
def engine() -> Engine:
    """The engine of this process; connects when first used.

    FastAPI runs plain `def` endpoints in as many threads, each of which needs a connection while it works.
    """
    made = create_engine(
        settings().database_url,
        pool_size=_KEPT,
        max_overflow=most_connections() - _KEPT,
        pool_timeout=10,
        connect_args=_CONNECT_ARGS,
    )
    event.listen(made, "checkout", _not_one_that_was_ended)
    event.listen(made, "handle_error", _ended_while_frozen, retval=True)
    return made


def _not_one_that_was_ended(connection: psycopg.Connection[Any], *_: object) -> None:
    """Has the pool connect anew where PostgreSQL ended a session that waited: only then is there something to read of it.

    A question to the kernel, where `pool_pre_ping` asks PostgreSQL.
    """
    waiting = poll()
    waiting.register(connection.fileno(), POLLIN)
    if waiting.poll(0):
        raise exc.DisconnectionError("the session was ended while it waited in the pool")


def _ended_while_frozen(context: ExceptionContext) -> exc.OperationalError | None:
    """A session that was ended because its process stood still is an outage; psycopg has it among the database's own faults."""
    cause = context.original_exception
    if not isinstance(cause, IdleInTransactionSessionTimeout | TransactionTimeout):
        return None
    context.is_disconnect = True
    return exc.OperationalError(context.statement, context.parameters, cause, connection_invalidated=True)


@cache
def sessions() -> sessionmaker[Session]:
    """Makes sessions on `engine()`; what they loaded stays readable after a commit. See `api/scoping.py` for what they see."""
    return sessionmaker(engine(), class_=ScopedSession, expire_on_commit=False)


@cache
def reading_sessions() -> sessionmaker[Session]:
    """As `sessions()`, for what only reads: no transaction spans its statements, each of which is one round trip."""
    reading = engine().execution_options(isolation_level="AUTOCOMMIT")
    return sessionmaker(reading, class_=ScopedSession, expire_on_commit=False)


@contextmanager
def transaction() -> Iterator[Session]:
    """A session in one transaction: committed at the end of the block, rolled back by an exception."""
    with sessions().begin() as session:
        yield session


@contextmanager
def across_projects() -> Iterator[Session]:
    """A transaction that sees the rows of all projects, whoever asks: for what the guard lets admins read alone."""
    with transaction() as session:
        session.info.pop(PROJECT, None)
        yield session


@contextmanager
def alone(lock: int) -> Iterator[bool]:
    """Whether no other process holds `lock`, an advisory one; it is then held for the block, by a connection of its own.

    It outlasts long work, and PostgreSQL frees it when the process ends; one that is frozen keeps it.
    """
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        held = bool(connection.scalar(select(func.pg_try_advisory_lock(lock))))
        try:
            yield held
        finally:
            if held:
                connection.invalidate()  # which frees it, also where PostgreSQL was started anew meanwhile


def see_one_moment(session: Session) -> None:
    """End the session's transaction; what it reads from here on is all of one moment."""
    session.rollback()
    session.connection(execution_options={"isolation_level": "REPEATABLE READ"})


def is_at_rest(session: Session) -> bool:
    """Whether PostgreSQL has no transaction open for `session`, and so need not be asked to end one. Waits for nothing."""
    connection: Connection | None = session.info.get(CONNECTION)
    if connection is None or connection.closed or connection.invalidated:
        return True
    raw: psycopg.Connection[Any] | None = connection.connection.driver_connection
    return raw is None or raw.info.transaction_status == TransactionStatus.IDLE
