"""How a run that is being followed is shown: on the whole terminal, line by line elsewhere, as JSON lines, or not at all."""

import sys
import time
from typing import Protocol

from rich.console import Console

from cli.client import Json
from cli.dashboard import Dashboard
from cli.run import Run
from cli.say import say, say_json
from cli.words import event_line, loud, progress_line

LINE_SECONDS = 5.0


class View(Protocol):
    def show(self, run: Run, news: list[Json]) -> None:
        """Show the run as it is now, and what is new since the last call."""

    def trouble(self, problem: str) -> None:
        """Say why nothing comes just now; the stream is tried again."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def view_for(*, as_json: bool = False, quiet: bool = False) -> View:
    """The view that suits where the output goes."""
    if as_json:
        return JsonView()
    if quiet:
        return NoView()
    # Not what FORCE_COLOR makes rich believe: a log file has no screen.
    has_screen = sys.stdout.isatty() and not Console().is_dumb_terminal
    return Dashboard(Console()) if has_screen else LineView()


class LineView:
    """A line at most every few seconds, for logs and pipes."""

    def __init__(self) -> None:
        self._shown_at = float("-inf")
        self._shown = ""

    def show(self, run: Run, news: list[Json]) -> None:
        for event in loud(news):
            say(event_line(event))
        now, line = time.monotonic(), progress_line(run)
        soon = now - self._shown_at < LINE_SECONDS or line == self._shown
        if run.ready and (run.ended is not None or not soon):
            say(line)
            self._shown, self._shown_at = line, now

    def trouble(self, problem: str) -> None:
        tell_trouble(problem)

    def close(self) -> None:
        """Nothing to put back."""


class JsonView:
    """One JSON object a line, as the service tells it: states, events and steps; the whole job at its end."""

    def show(self, run: Run, news: list[Json]) -> None:
        for each in [*news, *([] if run.ended is None else [run.job])]:
            say_json(each)

    def trouble(self, problem: str) -> None:
        tell_trouble(problem)

    def close(self) -> None:
        """Nothing to put back."""


class NoView:
    """For who waits for the end and its exit code alone."""

    def show(self, run: Run, news: list[Json]) -> None:
        """Nothing."""

    def trouble(self, problem: str) -> None:
        """Nothing: where it lasts, the command ends with it."""

    def close(self) -> None:
        """Nothing to put back."""


def tell_trouble(problem: str) -> None:
    sys.stderr.write(f"mhpo: {problem}; trying again\n")
