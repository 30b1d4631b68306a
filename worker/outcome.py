"""What the end of a process means for the record."""

import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from api.models import Json, Status
from api.reason import Fault, Reason
from api.storable import storable
from trainer.exits import Exit
from worker.lines import last_lines

LOG_LINES = 5


class Result(BaseModel):
    """`result.json`; an evaluation's has `benchmarks` too, which go to the record as they are."""

    model_config = ConfigDict(extra="allow", frozen=True)

    status: Literal["succeeded", "failed", "stopped"]
    fault: Literal["user", "system", "infra"] | None = None
    code: str | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """A terminal status."""

    status: Status
    reason: Reason | None
    result: Json | None = None


@dataclass(frozen=True, slots=True)
class Unfinished:
    """To be run again; a crash uses up one of the attempts."""

    reason: Reason
    crashed: bool


def outcome(program: str, code: int, folder: Path, log: Path, *, asked_to_stop: bool) -> Ended | Unfinished:
    """How a run of `program` (`trainer`, `evaluator`) that left `code` and its files goes into the record.

    Only a process that was not asked to stop can crash: where it was, KILL may have met it in the middle of a step.
    """
    result = _read(folder / "result.json")
    if code == Exit.DONE and result is not None and result.status == "succeeded":
        return Ended(Status.SUCCEEDED, None, storable(result.model_dump(mode="json")))
    if code == Exit.USER:
        return Ended(Status.FAILED, _reason(result, f"{program}_refused", Fault.USER, log), _document(result))
    if code == Exit.SYSTEM:
        return Ended(Status.FAILED, _reason(result, f"{program}_error", Fault.SYSTEM, log), _document(result))
    if code == Exit.DISK:
        message = f"The disk is full: {_message(result, log)}"
        return Unfinished(Reason("disk_full", Fault.INFRA, storable(message), retryable=True), crashed=not asked_to_stop)
    if asked_to_stop:
        return Unfinished(Reason("worker_stopped", Fault.INFRA, "The worker was shut down.", retryable=True), crashed=False)
    message = f"The {program} {_ending(code)}." + _tail(log)
    return Unfinished(Reason(f"{program}_crashed", Fault.INFRA, storable(message), retryable=True), crashed=True)


def _ending(code: int) -> str:
    """
    >>> _ending(-9)
    'was ended by SIGKILL'
    """
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    if code == Exit.DONE:
        return "ended without a result"
    if code == Exit.STOPPED:
        return "stopped without being asked to"
    return f"ended with exit code {code}"


def _reason(result: Result | None, code: str, fault: Fault, log: Path) -> Reason:
    told = None if result is None or result.message is None else result.code
    return Reason(storable(told or code), fault, storable(_message(result, log)))


def _message(result: Result | None, log: Path) -> str:
    if result is None or result.message is None:
        return f"It left no result.{_tail(log)}"
    return result.message


def _document(result: Result | None) -> Json | None:
    return None if result is None else storable(result.model_dump(mode="json"))


def _tail(log: Path) -> str:
    lines = last_lines(log, LOG_LINES)
    return f" The log ends:\n{lines}" if lines else ""


def _read(file: Path) -> Result | None:
    """None where there is none, or none that can be read: the exit code alone counts then."""
    try:
        return Result.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
