"""Where a step's time goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

PARTS = ("rollout", "rewards", "learner", "sync")


class StepClock:
    """Seconds of each part of one step; what no part claims is `other`."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._parts = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a part."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._parts[name] += time.perf_counter() - start

    def metrics(self, tokens: int) -> dict[str, float]:
        """The step's time split, and completion tokens a second over the step and over the rollout alone."""
        total = time.perf_counter() - self._started
        split = {f"time/{name}": seconds for name, seconds in self._parts.items()}
        return split | {
            "time/other": total - sum(self._parts.values()),
            "step_time": total,
            "perf/tokens_per_second": tokens / total,
            "perf/rollout_tokens_per_second": tokens / max(self._parts["rollout"], 1e-9),
        }
