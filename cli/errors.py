"""What a command tells its user instead of a traceback, and how it exits."""

from enum import IntEnum
from typing import Any, Self


class ExitCode(IntEnum):
    """Exit codes of `mhpo`, the same in every command; `meaning` is what the documents say."""

    meaning: str

    def __new__(cls, value: int, meaning: str) -> Self:
        code = int.__new__(cls, value)
        code._value_ = value
        code.meaning = meaning
        return code

    DONE = 0, "done; of a job that was watched: it succeeded"
    FAILED = 1, "the job failed, or something on this machine did"
    USAGE = 2, "the command line is wrong"
    CANCELLED = 3, "the job was cancelled"
    REFUSED = 4, "bad input: the service refused it, or a file cannot be used; the message names the field"
    UNREACHABLE = 5, "no service answers, or it cannot serve now: trying again may help"
    NOT_FOUND = 6, "there is no such job, file, checkpoint or metric"
    DENIED = 7, "no API key, one that does not work, or one whose scope does not reach"
    CONFLICT = 8, "the state of the job, file or name does not allow it"
    INTERRUPTED = 130, "stopped by Ctrl-C, TERM or HUP; a job that was watched goes on"


class CliError(Exception):
    """A sentence for the user, and the exit code that goes with it; `envelope` is the service's own words where it refused."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED, envelope: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.envelope = envelope

    def as_json(self) -> dict[str, Any]:
        """In the form of the API's errors."""
        ours = {"message": str(self), "type": "command_error", "param": None, "code": self.code.name.lower()}
        return self.envelope or {"error": ours}
