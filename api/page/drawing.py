"""Curves as paths of SVG, for what is seen before any script has run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from api.outlines import Outline


class Box(NamedTuple):
    """What a drawing shows: steps from left to right, values from bottom to top."""

    first: int
    last: int
    low: float
    high: float

    @classmethod
    def around(cls, *curves: Outline, air: float) -> Self:
        """All points of the curves, with a share of their height above and below; a flat curve lies in the middle."""
        steps = [step for curve in curves for step, _ in curve]
        values = [value for curve in curves for _, value in curve]
        low, high = min(values), max(values)
        room = (high - low) * air if high > low else abs(low) * 0.1 or 0.5
        return cls(min(steps), max(steps), 0.0 if low >= 0 > low - room else low - room, high + room)


@dataclass(frozen=True, slots=True)
class Drawing:
    """`width` by `height`, in the units of a viewBox."""

    width: int
    height: int
    box: Box

    def line(self, curve: Outline) -> str:
        """The path through the points of a curve."""
        return f"M{'L'.join(self._points(curve))}"

    def band(self, low: Outline, high: Outline) -> str:
        """The closed path between two curves."""
        return f"M{'L'.join(self._points([*high, *reversed(low)]))}Z"

    def _points(self, curve: Sequence[tuple[int, float]]) -> list[str]:
        box = self.box
        across = self.width / max(1, box.last - box.first)
        up = self.height / (box.high - box.low)
        return [f"{(step - box.first) * across:.1f} {self.height - (value - box.low) * up:.1f}" for step, value in curve]
