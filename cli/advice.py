"""The service's warnings about a run, looked at now and then."""

import time

from cli.client import Client, Json
from cli.errors import CliError, ExitCode

EVERY_SECONDS = 10.0
_TIMEOUT_SECONDS = 2.0  # the terminal stands still meanwhile


class Advice:
    """What the service warns of; nothing from a service that has no warnings."""

    def __init__(self, client: Client, job_id: str) -> None:
        self._client = Client(client.url, client.key, _TIMEOUT_SECONDS)
        self._path = f"/v1/jobs/{job_id}/warnings"
        self._warnings: list[Json] = []
        self._due = float("-inf")

    def now(self) -> list[Json]:
        """The warnings as they were at most EVERY_SECONDS ago."""
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + EVERY_SECONDS
            try:
                self._warnings = self._client.get(self._path)["data"]
            except CliError as error:
                if error.code is ExitCode.NOT_FOUND:
                    self._due = float("inf")
        return self._warnings


def warning_line(warning: Json) -> str:
    """`entropy has fallen to 0.02: lower the learning rate`."""
    return f"{warning['message']}{': ' + str(warning['hint']) if warning['hint'] else ''}"
