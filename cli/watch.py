"""`mhpo watch`: follow a job to its end."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.client import Client
from cli.dashboard import Dashboard
from cli.errors import CliError, ExitCode
from cli.panels import NAMES
from cli.run import Run
from cli.stopping import Stopped, stopped_by_signals
from cli.view import View, view_for

WAIT_SECONDS = 0.25
PATIENCE_SECONDS = 300.0  # for a service that does not answer, where nobody sees that it does not


def watch(job_id: str, url: str, *, as_json: bool, quiet: bool, patience: float = PATIENCE_SECONDS) -> ExitCode:
    """Show a job until it ends; returns the exit code that goes with its end."""
    client = Client(url)
    client.get(f"/v1/jobs/{job_id}")  # what is refused is told before the terminal is taken
    try:
        with stopped_by_signals(), shown(as_json=as_json, quiet=quiet) as view:
            endless = isinstance(view, Dashboard)  # somebody sits there and sees what is wrong
            with Run.opened(client, job_id, NAMES, whole=as_json) as run:
                return follow(run, view, patience=float("inf") if endless else patience)
    except Stopped:
        sys.stderr.write(f"{job_id} goes on. See it again: mhpo watch {job_id}; stop it: mhpo cancel {job_id}\n")
        return ExitCode.INTERRUPTED


@contextmanager
def shown(*, as_json: bool = False, quiet: bool = False) -> Iterator[View]:
    """The view that suits, for the length of a block; the terminal is as it was behind it."""
    view = view_for(as_json=as_json, quiet=quiet)
    try:
        yield view
    finally:
        view.close()


def follow(run: Run, view: View, meanwhile: Callable[[], None] = lambda: None, patience: float = PATIENCE_SECONDS) -> ExitCode:
    """Show `run` until it ends, calling `meanwhile` now and then; raises CliError for a service that is silent too long."""
    heard, told = time.monotonic(), ""
    while True:
        view.show(run, run.wait(WAIT_SECONDS))
        if run.ended is not None:
            return run.ended
        if run.problem and run.problem != told:
            view.trouble(run.problem)
        told = run.problem
        if not run.problem:
            heard = time.monotonic()
        elif time.monotonic() - heard > patience:
            raise CliError(run.problem, ExitCode.UNREACHABLE)
        meanwhile()
