"""Curves as they are followed: what was measured by metric and step, thinned where it gets long."""

from bisect import bisect_right
from collections.abc import Collection, Mapping

from cli.client import Json
from cli.curves import Curve

MOST_POINTS = 4000  # of one curve: more than the columns of any terminal


class Series:
    """Curves of chosen metrics. A step that is done again, in a later attempt, replaces itself and all behind it."""

    def __init__(self, names: Collection[str]) -> None:
        self.last_step = 0
        self._attempt = 0
        self._steps: dict[str, list[int]] = {name: [] for name in names}
        self._values: dict[str, list[float]] = {name: [] for name in names}

    @property
    def names(self) -> Collection[str]:
        return self._steps.keys()

    def load(self, page: Json) -> None:
        """Take the buckets of `GET .../metrics?max_points=...`: the mean of each, at its last step."""
        for name, bucket in page["series"].items():
            for step, value in zip(bucket["step"], bucket["mean"], strict=True):
                self._append(name, step, value)
        self.last_step = page["next_step"] - 1

    def add(self, step: int, attempt: int, metrics: Mapping[str, float | None]) -> None:
        """Take a step; one that is here already changes nothing."""
        if attempt > self._attempt:
            self._attempt = attempt
            self.cut(step - 1)
        if step <= self.last_step:
            return
        self.last_step = step
        for name in self._steps:
            self._append(name, step, metrics.get(name))

    def cut(self, step: int) -> None:
        """Forget what lies behind `step`."""
        self.last_step = min(self.last_step, step)
        for name, steps in self._steps.items():
            end = bisect_right(steps, step)
            del steps[end:], self._values[name][end:]

    def curve(self, name: str) -> Curve:
        """(step, value), steps rising; empty for a metric that has not been measured."""
        return list(zip(self._steps[name], self._values[name], strict=True))

    def _append(self, name: str, step: int, value: float | None) -> None:
        if value is None:
            return
        self._steps[name].append(step)
        self._values[name].append(value)
        if len(self._steps[name]) > MOST_POINTS:
            self._thin(name)

    def _thin(self, name: str) -> None:
        """Make each two points one, their mean at the later step; the last stays where it has no other."""
        steps, values = self._steps[name], self._values[name]
        whole = len(values) // 2 * 2
        self._values[name] = [(values[i] + values[i + 1]) / 2 for i in range(0, whole, 2)] + values[whole:]
        self._steps[name] = steps[1:whole:2] + steps[whole:]
