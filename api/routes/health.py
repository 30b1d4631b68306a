"""Whether the process lives, and whether it can do its work."""

import logging
import os
import signal
from http import HTTPStatus

from fastapi import APIRouter, Request
from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from api.database import engine
from api.errors import ApiError
from api.models import Outbox, Task
from api.processes import is_one_of_several
from api.queue import waiting
from api.schemas import Health

logger = logging.getLogger(__name__)

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def is_alive() -> Health:
    """The process answers."""
    return Health(status="ok")


@router.get("/readyz")
def is_ready(request: Request) -> Health:
    """Database, broker and background work are there; 503 names those that are not."""
    absent = [thread.name for thread in request.app.state.background if not thread.is_alive()]
    if absent and is_one_of_several():
        logger.error("without %s this process ends, and with it the others, whose answers would hide it", ", ".join(absent))
        os.kill(os.getpid(), signal.SIGTERM)
    absent += [name for name, is_there in (("database", _database_answers), ("redis", _broker_answers)) if not is_there()]
    if absent:
        raise ApiError(HTTPStatus.SERVICE_UNAVAILABLE, "not_ready", f"not reachable: {', '.join(absent)}")
    return Health(status="ready")


def _database_answers() -> bool:
    try:
        with engine().connect() as connection:
            connection.execute(select(Outbox.id).limit(1))  # fails as well where the schema is not there
    except SQLAlchemyError as error:
        logger.warning("the database does not answer: %s", error)
        return False
    return True


def _broker_answers() -> bool:
    try:
        waiting(Task.RUN_JOB)
    except BrokerError as error:
        logger.warning("redis does not answer: %s", error)
        return False
    return True
