"""What endpoints ask FastAPI for. They are coroutines: what has nothing to wait for takes no thread."""

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import CancelScope, to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.background import Repeated
from api.database import is_at_rest, reading_sessions, sessions


async def _request_session(request: Request) -> AsyncIterator[Session]:
    """It connects when it is first used, in the endpoint's thread, and what waits for PostgreSQL at its end does so in one too.

    A GET changes nothing, and has a session that only reads.
    """
    session = (reading_sessions() if request.method == "GET" else sessions())()
    try:
        yield session
    finally:
        if is_at_rest(session):
            session.close()
        else:
            with CancelScope(shield=True):
                await to_thread.run_sync(session.close)


async def _relay(request: Request) -> Repeated:
    relay: Repeated = request.app.state.relay
    return relay


SessionDep = Annotated[Session, Depends(_request_session, scope="function")]  # not for as long as a client reads
RelayDep = Annotated[Repeated, Depends(_relay)]
