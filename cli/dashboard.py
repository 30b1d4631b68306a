"""A run on the whole terminal: state, curves, events; drawn anew for each size that the terminal takes."""

import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.live import Live
from rich.text import Text

from cli.advice import Advice, warning_line
from cli.client import Json
from cli.curves import sparkline
from cli.panels import Panel, draw, measured, time_split
from cli.run import SHOWN, Run
from cli.words import duration, event_line, hint, loud, progress_line, state

REDRAW_SECONDS = 1.0  # where nothing is new: clocks go on
LEAST_PANEL = 5  # lines: a title, three of the plot, the steps
MOST_PANEL = 16
NARROW = 24  # columns below which no plot is worth drawing
WIDE = 76  # columns from which two panels lie side by side
VERY_WIDE = 150
MOST_WARNINGS = 3
_EVENTS = 50
_STYLES = {"succeeded": "bold green", "failed": "bold red", "cancelled": "bold yellow", "paused": "bold yellow"}


class Dashboard:
    """The view of a terminal. The job's last state stays on the screen when it is closed."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._events: deque[Json] = deque(maxlen=_EVENTS)
        self._advice: Advice | None = None
        self._drawn: tuple[float, object] = (float("-inf"), None)  # when, and what of
        self._run: Run | None = None
        self._live.start()

    def show(self, run: Run, news: list[Json]) -> None:
        self._run = run
        self._advice = self._advice or Advice(run.client, run.id)
        self._events.extend(loud(news))
        now, what = time.monotonic(), (self._console.size, run.problem)
        if not news and what == self._drawn[1] and now - self._drawn[0] < REDRAW_SECONDS:
            return
        self._drawn = now, what
        warnings = [] if run.problem else self._advice.now()
        self._live.update(Frame(run, warnings, list(self._events)), refresh=True)

    def trouble(self, problem: str) -> None:
        """Nothing: the frame has it."""

    def close(self) -> None:
        self._live.stop()
        if self._run is not None:
            self._console.print(summary(self._run))


class Frame:
    """Everything about a run, in as many lines and columns as there are."""

    def __init__(self, run: Run, warnings: Sequence[Json], events: Sequence[Json]) -> None:
        self._run = run
        self._warnings = warnings
        self._events = events

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width, height = options.max_width, options.height or console.height
        head, foot = self._head(width), self._foot(height)
        times = time_split(self._run.series, width) if height >= 20 else []
        left = height - len(head) - len(times) - len(foot)
        body = panels(self._run, width, left)
        gap = [Text("")] * (left - len(body))
        for line in [*head, *body, *times, *gap, *foot][:height]:
            if isinstance(line, Text):
                line.no_wrap, line.overflow, line.end = True, "ellipsis", "\n"
            yield line

    def _head(self, width: int) -> list[Text]:
        job = self._run.job
        name = f"{job['name']}  " if job["name"] else ""
        title = Text.assemble((name, "bold"), (job["id"], "dim"), "  ", (state(job), _STYLES.get(job["status"], "bold cyan")))
        if job["worker"] and not job["finished_at"]:
            title.append(f"  on {job['worker']}", style="dim")
        advice = [Text(f"  {hint(job)}", style="yellow")] if hint(job) else []
        shown = [Text(f"⚠ {warning_line(each)}", style="yellow") for each in self._warnings[:MOST_WARNINGS]]
        return [title, _progress(self._run, width), *advice, *shown]

    def _foot(self, height: int) -> list[Text]:
        count = min(6, max(1, height // 6))
        shown = [Text(event_line(event), style=event_style(event)) for event in list(self._events)[-count:]]
        problem = self._run.problem
        live = Text("○ disconnected, trying again", style="yellow") if problem else Text("● live", style="green")
        return [*shown, live.append("   Ctrl-C leaves; the job goes on", style="dim").append(f"   {problem}", style="yellow")]


def panels(run: Run, width: int, height: int) -> list[Text]:
    """As many panels as fit, the first ones first; a sparkline a metric where not one does."""
    found = measured(run.series)
    columns = 1 if width < WIDE else 2 if width < VERY_WIDE else 3
    rows = min(-(-len(found) // columns), height // LEAST_PANEL) if width >= NARROW else 0
    if not rows:
        return sparklines(run, width)[: max(0, height)]
    each = min(MOST_PANEL, height // rows)
    lines: list[Text] = []
    for row in range(rows):
        lines += _beside(found[row * columns : (row + 1) * columns], run, width, columns, each)
    return lines


def sparklines(run: Run, width: int) -> list[Text]:
    """`reward  ▁▂▄▆█  0.42  first 0.12`."""
    lines = []
    for name in SHOWN:
        values = [value for _, value in run.curve(name)]
        if values:
            blocks = Text(sparkline(values, max(8, width - 52)), style="cyan")
            lines.append(Text.assemble(f"{name:24} ", blocks, f"  {values[-1]:.4g}  first {values[0]:.4g}"))
    return lines


def summary(run: Run) -> Group:
    """What stays in the terminal after the dashboard is gone."""
    told = Text(f"{run.id}  {progress_line(run)}", style=_STYLES.get(run.job["status"], ""))
    return Group(told, *([Text(hint(run.job), style="yellow")] if hint(run.job) else []))


def event_style(event: Json) -> str:
    return {"warn": "yellow", "error": "red"}.get(event["level"], "dim")


def _beside(row: Sequence[Panel], run: Run, width: int, columns: int, height: int) -> list[Text]:
    """Panels side by side, line by line."""
    gap = 2
    each = (width - gap * (columns - 1)) // columns
    drawn = [draw(panel, run.series, each, height) for panel in row]
    lines = []
    for parts in zip(*drawn, strict=True):
        line = Text()
        for number, part in enumerate(parts):
            line.pad_right(number * (each + gap) - line.cell_len)
            line.append_text(part)
        lines.append(line)
    return lines


def _progress(run: Run, width: int) -> Text:
    """`━━━━━─────  step 12/110 11%  about 1 m 50 s left  started 3 m ago`."""
    done, steps, left = run.job["step"], run.job["steps"], run.seconds_left()
    bar = min(40, max(10, width // 3))
    filled = bar * done // steps
    line = Text.assemble(("━" * filled, "cyan"), ("─" * (bar - filled), "dim"), f"  step {done}/{steps} {100 * done // steps}%")
    if left is not None:
        line.append(f"  about {duration(left)} left")
    if run.job["started_at"]:
        end = run.job["finished_at"]
        until = datetime.fromisoformat(end) if end else datetime.now(UTC)
        spent = (until - datetime.fromisoformat(run.job["started_at"])).total_seconds()
        line.append(f"  {'took' if end else 'running for'} {duration(max(0.0, spent))}", style="dim")
    return line
