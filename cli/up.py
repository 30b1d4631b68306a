"""`mhpo up`: the service in the foreground, until Ctrl-C."""

import os
import time
from typing import Any

from api.settings import Settings
from cli.credentials import key_file
from cli.say import say, say_aside, say_json
from cli.stack import Stack, running
from cli.stopping import Stopped, stopped_by_signals

TEND_SECONDS = 0.5


def up(settings: Settings, *, as_json: bool) -> None:
    """Run the service until a signal asks for its end; raises CliError where a part cannot be kept alive.

    `as_json`: one object is printed, once the service is ready; the rest goes to standard error.
    """
    tell = say_aside if as_json else say
    try:
        with stopped_by_signals(), running(settings, tell) as stack:
            tell(f"logs: {stack.logs}")
            tell(f"documentation of the API: {stack.url}/docs")
            tell("submit a job: mhpo submit examples/first-run.toml --follow")
            tell("Ctrl-C stops everything")
            if as_json:
                say_json(_service(stack))
            while True:
                stack.tend()
                time.sleep(TEND_SECONDS)
    except Stopped as signalled:
        tell(f"{signalled}: stopped")


def _service(stack: Stack) -> dict[str, Any]:
    """What a program needs to use the service and to stop it; the key itself is in its file only."""
    return {
        "object": "service",
        "url": stack.url,
        "process": os.getpid(),
        "data_dir": str(stack.data_dir),
        "logs": str(stack.logs),
        "key_file": str(key_file(stack.data_dir)),
    }
