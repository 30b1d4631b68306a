"""What a command tells its user instead of a traceback."""

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of `mhpo`; 2 is a wrong command line."""

    DONE = 0
    FAILED = 1  # the job, or a part of the service, failed
    CANCELLED = 3  # the job was cancelled
    REFUSED = 4  # the service refused the request
    UNREACHABLE = 5  # no service answers


class CliError(Exception):
    """A sentence for the user and the exit code that goes with it."""

    def __init__(self, message: str, code: ExitCode = ExitCode.FAILED) -> None:
        super().__init__(message)
        self.code = code
