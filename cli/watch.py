"""`mhpo watch`: follow a job to its end."""

import time
from collections.abc import Callable

from rich.console import Console

from cli.client import Client
from cli.errors import ExitCode
from cli.run import Run
from cli.view import View, view_for

POLL_SECONDS = 0.5


def watch(job_id: str, url: str, *, as_json: bool) -> ExitCode:
    """Show a job until it ends; returns the exit code that goes with its end."""
    view = view_for(Console(), as_json=as_json)
    try:
        return follow(Run(Client(url), job_id), view)
    finally:
        view.close()


def follow(run: Run, view: View, meanwhile: Callable[[], None] = lambda: None) -> ExitCode:
    """Poll and show `run` until it ends, calling `meanwhile` between polls."""
    while True:
        events = run.poll()
        view.show(run, events)
        if run.ended is not None:
            return run.ended
        meanwhile()
        time.sleep(POLL_SECONDS)
