"""Work that the API repeats beside its requests, in a thread of its own that no outage ends."""

import logging
import threading
import time
from collections.abc import Callable

from kombu.exceptions import OperationalError as BrokerError
from sqlalchemy.exc import SQLAlchemyError

logger = logging.getLogger(__name__)


class Repeated:
    """Calls `work` every `seconds`, and at once when woken, until stopped; but rests for `rest` seconds after each call.

    What wakes it again and again is then served by one call for all of it.

    An outage of database or broker, or a schema not yet migrated, is logged and waited out. Anything else is a bug: it
    ends the thread, and the service is no longer ready.
    """

    def __init__(self, name: str, seconds: float, work: Callable[[], object], *, rest: float = 0.0) -> None:
        self._seconds = seconds
        self._rest = rest
        self._work = work
        self._woken = threading.Event()
        self._stopping = False
        self._failing = False
        self._thread = threading.Thread(target=self._repeat, name=name, daemon=True)

    @property
    def name(self) -> str:
        return self._thread.name

    def start(self) -> None:
        self._thread.start()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def wake(self) -> None:
        """Have `work` called now, or once more if it is being called."""
        self._woken.set()

    def stop(self) -> None:
        """End the thread after the call that it is in."""
        self._stopping = True
        self._woken.set()
        self._thread.join()

    def _repeat(self) -> None:
        while not self._stopping:
            self._woken.clear()
            self._try()
            time.sleep(self._rest)
            self._woken.wait(self._seconds)

    def _try(self) -> None:
        try:
            self._work()
        except (SQLAlchemyError, BrokerError) as error:
            if not self._failing:  # once an outage, not once a call
                logger.warning("%s waits for database and broker: %s", self.name, error)
            self._failing = True
            return
        if self._failing:
            logger.warning("%s works again", self.name)
        self._failing = False
