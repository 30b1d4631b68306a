"""What endpoints ask FastAPI for."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from api.background import Repeated
from api.database import sessions


def _request_session() -> Iterator[Session]:
    with sessions()() as session:
        yield session


def _relay(request: Request) -> Repeated:
    relay: Repeated = request.app.state.relay
    return relay


SessionDep = Annotated[Session, Depends(_request_session)]
RelayDep = Annotated[Repeated, Depends(_relay)]
