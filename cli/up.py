"""`mhpo up`: the service in the foreground, until Ctrl-C."""

import time

from api.settings import Settings
from cli.say import say
from cli.stack import running
from cli.stopping import Stopped, stopped_by_signals

TEND_SECONDS = 0.5


def up(settings: Settings) -> None:
    """Run the service until a signal asks for its end; raises CliError where a part cannot be kept alive."""
    try:
        with stopped_by_signals(), running(settings, say) as stack:
            say(f"logs: {stack.logs}")
            say(f"documentation of the API: {stack.url}/docs")
            say("submit a job: mhpo submit examples/first-run.toml --follow")
            say("Ctrl-C stops everything")
            while True:
                stack.tend()
                time.sleep(TEND_SECONDS)
    except Stopped as signalled:
        say(f"{signalled}: stopped")
