"""Why a job or evaluation is in its status: a code for programs, whose fault, what happened and what to do about it."""

from dataclasses import asdict, dataclass
from enum import StrEnum

from api.models import Json, Status


class Fault(StrEnum):
    USER = "user"
    SYSTEM = "system"
    INFRA = "infra"


@dataclass(frozen=True, slots=True)
class Reason:
    """What led to a status; what to do about it depends on that status."""

    code: str
    fault: Fault
    message: str
    retryable: bool = False

    def as_json(self, status: Status) -> Json:
        return {**asdict(self), "hint": hint(status, self.fault)}


CANCELLED = Reason("cancelled", Fault.USER, "Cancelled on request.")
PAUSED = Reason("paused", Fault.USER, "Paused on request.")
WORKER_LOST = Reason("worker_lost", Fault.INFRA, "The worker stopped sending heartbeats.", retryable=True)

_FAILED = {
    Fault.USER: "Correct what the message names: `mhpo clone JOB key=value` makes a job of this spec with your changes.",
    Fault.SYSTEM: "A fault of this software: the log in the run folder has the traceback. `mhpo retry JOB` runs it again.",
    Fault.INFRA: "Look for what ended the process (memory, driver, disk), then run it again with `mhpo retry JOB`.",
}
_OTHERWISE = {
    Status.CANCELLED: "`mhpo retry JOB` runs it again from the beginning.",
    Status.PAUSED: "`mhpo resume JOB` goes on at its last checkpoint.",
    Status.QUEUED: "Nothing: it goes on at its last checkpoint by itself.",
}


_TOO_MUCH = (
    "Start a worker on such a machine, or cancel it and clone it with less: "
    "`mhpo clone JOB resources.gpus=1`, or `resources.device=auto`."
)


def hint(status: Status, fault: Fault) -> str | None:
    """What a person can do about it.

    >>> hint(Status.QUEUED, Fault.INFRA)
    'Nothing: it goes on at its last checkpoint by itself.'
    """
    if (status, fault) == (Status.QUEUED, Fault.USER):
        return _TOO_MUCH
    return _FAILED[fault] if status is Status.FAILED else _OTHERWISE.get(status)
