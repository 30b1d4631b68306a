"""What goes to standard output: lines for a person or a log file, tables, and JSON lines for a program."""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console, RenderableType

PIPE_WIDTH = 200  # columns of a table that no terminal limits


def say(line: str) -> None:
    """Print one line at once: a pipe would keep it back."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def say_aside(line: str) -> None:
    """Print one line to standard error, where standard output is a program's."""
    sys.stderr.write(f"{line}\n")


def say_json(document: Any) -> None:
    """Print a document in one line."""
    say(json.dumps(document))


def say_rows(rows: Iterable[Any], as_json: bool, table: Callable[[list[Any]], RenderableType], empty: str = "") -> None:
    """Print rows as a table, or a line of JSON each as they come; `empty` is said of no rows at all."""
    if as_json:
        for row in rows:
            say_json(row)
        return
    found = list(rows)
    if found or not empty:
        wide_console().print(table(found))
    else:
        say(empty)


def wide_console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)
