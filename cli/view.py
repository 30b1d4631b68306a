"""How a run that is being followed looks: redrawn in place on a terminal, line by line elsewhere, or JSON lines."""

import json
import sys
import time
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.client import Json
from cli.curves import sparkline
from cli.run import SHOWN, Run
from cli.say import say

LINE_SECONDS = 5.0
SPARK_WIDTH = 40
_QUIET = {"phase"}  # the current phase is shown; its history is in `mhpo watch --json`
_STYLES = {"succeeded": "green", "failed": "red", "cancelled": "yellow"}


class View(Protocol):
    def show(self, run: Run, events: list[Json]) -> None:
        """Show the run as it is now, and what happened since the last call."""

    def close(self) -> None: ...


def view_for(console: Console, *, as_json: bool) -> View:
    """The view that suits where the output goes."""
    if as_json:
        return JsonView()
    return LiveView(console) if console.is_terminal else LineView()


class LiveView:
    """Progress, curves and state at the bottom of the terminal; events scroll away above."""

    def __init__(self, console: Console) -> None:
        self._live = Live(console=console, refresh_per_second=4, transient=False)
        self._live.start()

    def show(self, run: Run, events: list[Json]) -> None:
        for event in loud(events):
            self._live.console.print(Text(event_line(event), style=_event_style(event)))
        self._live.update(_panel(run))

    def close(self) -> None:
        self._live.stop()


class LineView:
    """A line at most every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._shown_at = float("-inf")
        self._shown = ""

    def show(self, run: Run, events: list[Json]) -> None:
        for event in loud(events):
            say(event_line(event))
        now = time.monotonic()
        if run.ended is None and now - self._shown_at < LINE_SECONDS:
            return
        line = progress_line(run)
        if line != self._shown:
            say(line)
            self._shown, self._shown_at = line, now

    def close(self) -> None:
        """Nothing to put back."""


class JsonView:
    """One JSON object a line: each event, and the job whenever it changed."""

    def __init__(self) -> None:
        self._job: Json = {}

    def show(self, run: Run, events: list[Json]) -> None:
        changed = [] if run.job == self._job else [run.job]
        for each in [*events, *changed]:
            sys.stdout.write(json.dumps(each) + "\n")
        sys.stdout.flush()
        self._job = run.job

    def close(self) -> None:
        """Nothing to put back."""


def loud(events: list[Json]) -> list[Json]:
    """The events that a person wants a line for."""
    return [event for event in events if event["type"] not in _QUIET]


def event_line(event: Json) -> str:
    """`13:05:12 warn step 12: grader math raised on 3 completions`."""
    clock = event["created_at"][11:19]
    level = "" if event["level"] == "info" else f"{event['level']} "
    step = "" if event["step"] is None else f"step {event['step']}: "
    return f"{clock} {level}{step}{event['message']}"


def progress_line(run: Run) -> str:
    """`step 12/110 11% | about 1 m 50 s left | learning | reward 0.42 ▁▂▃ | ...`."""
    done, steps = run.job["step"], run.job["steps"]
    parts = [f"step {done}/{steps} {100 * done // steps}%"]
    left = run.seconds_left()
    if left is not None:
        parts.append(f"about {duration(left)} left")
    parts.append(state(run))
    for name in SHOWN:
        values = [value for _, value in run.curve(name)]
        if values:
            parts.append(f"{name} {values[-1]:.3g} {sparkline(values, 12)}")
    return " | ".join(parts)


def state(run: Run) -> str:
    """The status, with the phase while it runs and the reason where there is one."""
    job = run.job
    stopping = ", asked to stop" if job["cancel_requested"] and run.ended is None else ""
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    phase = f" ({job['phase']})" if job["phase"] and run.ended is None else ""
    return f"{job['status']}{phase}{attempt}{stopping}{': ' + reason(job) if job['status_reason'] else ''}"


def reason(job: Json) -> str:
    """Why it is in its status, in one line: a traceback or the end of a log is told by the event."""
    return str(job["status_reason"]["message"]).partition("\n")[0] if job["status_reason"] else ""


def duration(seconds: float) -> str:
    """`50 s`, `3 m 05 s`, `2 h 10 m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"


def _panel(run: Run) -> Group:
    done, steps, left = run.job["step"], run.job["steps"], run.seconds_left()
    head = Table.grid(padding=(0, 1))
    eta = "" if left is None else f"about {duration(left)} left"
    head.add_row(ProgressBar(total=steps, completed=done, width=SPARK_WIDTH), f"step {done}/{steps}", eta)
    curves = Table.grid(padding=(0, 2))
    for name in SHOWN:
        values = [value for _, value in run.curve(name)]
        if values:
            curves.add_row(
                name, Text(sparkline(values, SPARK_WIDTH), style="cyan"), f"{values[-1]:.4g}", f"first {values[0]:.4g}"
            )
    return Group(Text(f"{run.id}  {state(run)}", style=_STYLES.get(run.job["status"], "")), head, curves)


def _event_style(event: Json) -> str:
    return {"warn": "yellow", "error": "red"}.get(event["level"], "dim")
