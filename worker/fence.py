"""Ends a process whose lease ran out, whatever the rest of the worker is stuck in."""

import threading
import time
from typing import Self

from worker.process import Child


class Fence:
    """Falls when the lease ends unless `extend` moved that end, and kills the child then: the claim may be another
    worker's by now, and two trainers must never write one folder. It stays fallen.

    Times are of the machine's boot clock, which goes on while the machine sleeps.
    """

    def __init__(self, deadline: float) -> None:
        self._deadline = deadline
        self._killed = False
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    @property
    def fell(self) -> bool:
        return self._killed or now() >= self._deadline

    def extend(self, deadline: float) -> None:
        self._deadline = deadline

    def guard(self, child: Child) -> None:
        """Watch over `child` from a thread of its own until the fence is left."""
        self._thread = threading.Thread(target=self._watch, args=(child,), name="fence", daemon=True)
        self._thread.start()

    def _watch(self, child: Child) -> None:
        while not self._over.wait(min(max(self._deadline - now(), 0.0), 0.5)):
            if self.fell:
                self._killed = True
                child.kill()
                return


def now() -> float:
    """Seconds since boot, sleep of the machine included."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
