"""Says in the `workers` table that this worker is there and which queues it serves."""

import logging
import os
import socket
from collections.abc import Callable
from typing import Any

from celery import bootsteps
from sqlalchemy import delete
from sqlalchemy.orm import Session

from api.database import OUTAGES, engine, transaction
from api.models import Worker
from api.settings import settings
from api.workers import worker_seen

logger = logging.getLogger(__name__)


class Presence(bootsteps.StartStopStep):  # type: ignore[misc] # Celery has no types
    """A step of the worker's main process, on its own timer: no thread that a fork of the pool could catch at work."""

    requires = ("celery.worker.components:Timer", "celery.worker.components:Pool")

    def start(self, worker: Any) -> None:
        self._beat = worker.timer.call_repeatedly(settings().heartbeat_seconds, self._tell, (worker,))
        self._here = True
        self._tell(worker)

    def stop(self, worker: Any) -> None:
        self._here = False  # the timer goes on for a while, and a beat that is due already would bring the row back
        self._beat.cancel()
        _reach(lambda session: session.execute(delete(Worker).where(Worker.name == worker.hostname)))

    def _tell(self, worker: Any) -> None:
        if not self._here:
            return
        queues = ",".join(sorted(worker.app.amqp.queues.consume_from))
        _reach(lambda session: worker_seen(session, worker.hostname, socket.gethostname(), os.getpid(), queues))


def _reach(write: Callable[[Session], object]) -> None:
    try:
        with transaction() as session:
            write(session)
    except OUTAGES as error:
        logger.warning("the record does not answer: %s", error)
    finally:
        engine().dispose()  # no open connection for the pool's forks to inherit
