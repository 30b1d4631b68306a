"""What endpoints ask FastAPI for. They are coroutines: what has nothing to wait for takes no thread."""

from collections.abc import AsyncIterator
from typing import Annotated

from anyio import CancelScope, to_thread
from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.background import Repeated
from api.database import sessions


async def _request_session() -> AsyncIterator[Session]:
    """It connects when it is first used, in the endpoint's thread; its connection is given back in one too."""
    session = sessions()()
    try:
        yield session
    finally:
        if session.in_transaction():
            with CancelScope(shield=True):
                await to_thread.run_sync(session.close)


async def _relay(request: Request) -> Repeated:
    relay: Repeated = request.app.state.relay
    return relay


SessionDep = Annotated[Session, Depends(_request_session)]
RelayDep = Annotated[Repeated, Depends(_relay)]
