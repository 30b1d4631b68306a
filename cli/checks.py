"""What `mhpo doctor` finds, check by check."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    WARN = "warn"  # works, but something will not
    FAIL = "fail"
    AWAY = "away"  # a part of the service does not run


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, how it is, what was found, and what to do about it."""

    part: str
    state: State
    found: str
    fix: str = ""

    def as_json(self) -> dict[str, str]:
        return {"object": "check", "part": self.part, "state": self.state, "found": self.found, "fix": self.fix}


Check = Callable[[], Iterator[Finding]]


class Watch:
    """How long something took: `3 ms`."""

    def __init__(self) -> None:
        self._started = time.perf_counter()

    def __str__(self) -> str:
        return f"{1000 * (time.perf_counter() - self._started):.0f} ms"
