"""The curves that a run is read by, as panels of a terminal; the same as on the page."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.text import Text

from cli.canvas import Canvas
from cli.curves import Curve
from cli.run import STEP_TIME
from cli.series import Series

COLOURS = ("cyan", "magenta", "yellow", "green", "blue")
_BAND = "bright_black"
_MARGIN = 8  # columns of the labels at the left
_SHARE_STEPS = 20  # the time split is of so many last steps


@dataclass(frozen=True, slots=True)
class Panel:
    """Lines, a band from `low` to `high` or `spread` about the first line, and points that are marked."""

    title: str
    lines: tuple[str, ...]
    spread: str = ""
    low: str = ""
    high: str = ""
    points: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name in (*self.lines, self.spread, self.low, self.high, self.points) if name)


PANELS = (
    Panel("Reward", ("reward",), spread="reward_std", points="eval/reward"),
    Panel("Gradient norm, on-policy scale", ("grad_norm/on_policy",)),
    Panel("KL", ("kl", "kl/rollout")),
    Panel("Length", ("completions/mean_length",), low="completions/min_length", high="completions/max_length"),
    Panel("Entropy", ("entropy",)),
    Panel("Log-ratio drift", ("ratio/log_abs_mean",)),
    Panel("Groups without signal", ("frac_reward_zero_std",)),
    Panel("Truncated", ("completions/clipped_ratio",)),
)
TIMES = ("time/rollout", "time/rewards", "time/learner", "time/sync", "time/other")
NAMES = (*(name for panel in PANELS for name in panel.names), *TIMES, "grad_norm", "perf/tokens_per_second")


def measured(series: Series) -> list[Panel]:
    """The panels that have something to show, by importance; all but the last ones where nothing has been measured."""
    found = [panel for panel in PANELS if any(series.curve(name) for name in panel.lines)]
    return found or list(PANELS[:4])


def draw(panel: Panel, series: Series, width: int, height: int) -> list[Text]:
    """A panel as `height` lines of `width` columns: a title with the last values, the plot, the steps at its ends."""
    lines = [series.curve(name) for name in panel.lines]
    if not any(lines):
        rest = [Text("nothing measured yet", style="dim"), *(Text() for _ in range(height - 2))]
        return [Text(panel.title, style="bold"), *rest]
    steps = [step for curve in lines for step, _ in curve]
    first, last = min(steps), max(steps)
    band = _band(panel, series, lines[0])
    marks = series.curve(panel.points) if panel.points else ()
    values = [value for curve in (*lines, marks) for _, value in curve] + [value for _, *edges in band for value in edges]
    plot = _Plot(Canvas(width - _MARGIN, height - 2), first, last, min(values), max(values))
    plot.fill(band)
    for curve, colour in zip(lines, COLOURS, strict=False):
        plot.line(curve, colour)
    for step, value in marks:
        plot.mark(step, value)
    return [_title(panel, lines, marks, width), *plot.text(), _ends(first, last, width)]


def time_split(series: Series, width: int) -> list[Text]:
    """What the last steps have spent their time on: a stacked bar and its legend; empty before the first step."""
    spent = {name: _mean(series.curve(name)) for name in TIMES}
    whole = sum(spent.values())
    if whole <= 0:
        return []
    bar, legend = Text(no_wrap=True, end=""), Text(no_wrap=True, end="")
    for (name, seconds), colour in zip(spent.items(), COLOURS, strict=True):
        bar.append("█" * round(width * seconds / whole), style=colour)
        if seconds:
            legend.append("■ ", style=colour).append(f"{name.removeprefix('time/')} {100 * seconds / whole:.0f}%  ")
    bar.truncate(width)
    speed = _mean(series.curve("perf/tokens_per_second"))
    title = f"Step {_mean(series.curve(STEP_TIME)) or whole:.3g} s" + (f", {speed:.0f} tokens/s" if speed else "")
    return [Text.assemble((title, "bold"), "  ", legend, no_wrap=True, end=""), bar]


class _Plot:
    """Values over steps on a canvas."""

    def __init__(self, canvas: Canvas, first: int, last: int, low: float, high: float) -> None:
        self._canvas = canvas
        self._first, self._last = first, last
        self._low, self._high = (low, high) if low < high else (low - 0.5, high + 0.5)

    def fill(self, band: Sequence[tuple[int, float, float]]) -> None:
        """Every second dot between the two edges of a band."""
        lows = self._rows([(step, low) for step, low, _ in band])
        highs = self._rows([(step, high) for step, _, high in band])
        for column, (low, high) in enumerate(zip(lows, highs, strict=True)):
            if low is not None and high is not None:
                for row in range(low, high + 1):
                    if (row + column) % 2 == 0:
                        self._canvas.dot(column, row, _BAND)

    def line(self, curve: Curve, style: str) -> None:
        """A dot a column at the mean of its steps, joined with the one before."""
        before: int | None = None
        for column, row in enumerate(self._rows(curve)):
            if row is not None:
                start = row if before is None else before + (row > before) - (row < before)
                for each in range(min(start, row), max(start, row) + 1):
                    self._canvas.dot(column, each, style)
                before = row

    def mark(self, step: int, value: float) -> None:
        self._canvas.mark(self._column(step), self._row(value), "◆", "bold yellow")

    def text(self) -> list[Text]:
        """The canvas with the largest and the smallest value at its left."""
        lines = self._canvas.lines()
        labels = ["" for _ in lines]
        labels[0], labels[-1] = f"{self._high:.3g}", f"{self._low:.3g}"
        return [
            Text.assemble((f"{label:>{_MARGIN - 2}} ", "dim"), ("│", "dim"), line, no_wrap=True, end="")
            for label, line in zip(labels, lines, strict=True)
        ]

    def _rows(self, curve: Curve) -> list[int | None]:
        """The row of each column: that of the mean of its steps, or of the straight line over a gap."""
        sums = [(0.0, 0)] * self._canvas.columns
        for step, value in curve:
            total, count = sums[self._column(step)]
            sums[self._column(step)] = total + value, count + 1
        known = [(column, total / count) for column, (total, count) in enumerate(sums) if count]
        rows: list[int | None] = [None] * len(sums)
        for (left, start), (right, end) in zip(known, known[1:] or known, strict=False):
            for column in range(left, right + 1):
                rows[column] = self._row(start + (end - start) * (column - left) / max(1, right - left))
        return rows

    def _column(self, step: int) -> int:
        span = max(1, self._last - self._first)
        return min(self._canvas.columns - 1, max(0, round((step - self._first) / span * (self._canvas.columns - 1))))

    def _row(self, value: float) -> int:
        place = (value - self._low) / (self._high - self._low) * (self._canvas.rows - 1)
        return min(self._canvas.rows - 1, max(0, round(place)))


def _band(panel: Panel, series: Series, curve: Curve) -> list[tuple[int, float, float]]:
    """(step, low, high), at the steps that have both edges."""
    if panel.spread:
        spread = dict(series.curve(panel.spread))
        return [(step, value - spread[step], value + spread[step]) for step, value in curve if step in spread]
    if not panel.low:
        return []
    low, high = dict(series.curve(panel.low)), dict(series.curve(panel.high))
    return [(step, low[step], high[step]) for step in low if step in high]


def _title(panel: Panel, lines: Sequence[Curve], marks: Curve, width: int) -> Text:
    title = Text(panel.title, style="bold", no_wrap=True, end="")
    alone = len([curve for curve in lines if curve]) == 1
    for name, curve, colour in zip(panel.lines, lines, COLOURS, strict=False):
        if curve:
            title.append(f"  {'' if alone else name + ' '}{curve[-1][1]:.4g}", style=f"not bold {colour}")
    if marks:
        title.append(f"  ◆ held out {marks[-1][1]:.4g}", style="not bold yellow")
    title.truncate(width)
    return title


def _ends(first: int, last: int, width: int) -> Text:
    left, right = str(first), "" if first == last else str(last)
    return Text(" " * _MARGIN + left + right.rjust(width - _MARGIN - len(left)), style="dim", no_wrap=True, end="")


def _mean(curve: Curve) -> float:
    recent = [value for _, value in curve[-_SHARE_STEPS:]]
    return sum(recent) / len(recent) if recent else 0.0
