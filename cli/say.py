"""Lines for a person or a log file."""

import sys

from rich.console import Console

PIPE_WIDTH = 200  # columns of a table that no terminal limits


def say(line: str) -> None:
    """Print one line at once: a pipe would keep it back."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def wide_console() -> Console:
    """Where tables go: as wide as the terminal, or wide enough where there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)
