"""Stopping on SIGTERM or SIGINT without tearing a step."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(Exception):  # noqa: N818  # not an error
    """The run was told to stop."""


class StopSignal:
    """Remembers that the run was told to stop; raises Stopped where that does no harm."""

    def __init__(self) -> None:
        self._requested = False
        self._interruptible = False

    def listen(self) -> None:
        """From now on SIGTERM and SIGINT ask this run to stop. Main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._handle)

    def check(self) -> None:
        """Raises Stopped if the run was told to stop."""
        if self._requested:
            raise Stopped

    @property
    def requested(self) -> bool:
        """Whether the run was told to stop."""
        return self._requested

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Inside, a signal raises Stopped at once: for long waits that change nothing."""
        self.check()
        self._interruptible = True
        try:
            yield
        finally:
            self._interruptible = False

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._requested = True
        if self._interruptible:
            self._interruptible = False
            raise Stopped
