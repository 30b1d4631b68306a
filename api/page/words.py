"""Numbers, times and states as people say them; `static/words.js` says numbers, durations and statuses in the same way."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from math import floor, isfinite

from api.models import Phase, Status
from api.reason import Fault

STATUS_WORDS: Mapping[str, str] = {
    Status.VALIDATING_FILES: "Checking files",
    Status.QUEUED: "Queued",
    Status.RUNNING: "Running",
    Status.PAUSED: "Paused",
    Status.SUCCEEDED: "Succeeded",
    Status.FAILED: "Failed",
    Status.CANCELLED: "Cancelled",
}
_TONES: Mapping[str, str] = {
    Status.VALIDATING_FILES: "wait",
    Status.QUEUED: "wait",
    Status.RUNNING: "live",
    Status.PAUSED: "wait",
    Status.SUCCEEDED: "good",
    Status.FAILED: "bad",
}
_PHASE_WORDS: Mapping[str, str] = {
    Phase.PROVISIONING: "getting a worker",
    Phase.LOADING_MODEL: "loading the model",
    Phase.ROLLOUT: "sampling completions",
    Phase.LEARNING: "learning",
    Phase.EVALUATING: "evaluating",
    Phase.CHECKPOINTING: "saving a checkpoint",
    Phase.PAUSING: "pausing",
    Phase.CANCELLING: "stopping",
    Phase.RECOVERING: "recovering",
    Phase.FINALIZING: "finishing",
}
_FAULT_WORDS: Mapping[str, str] = {
    Fault.USER: "the job's own fault",
    Fault.SYSTEM: "a fault of this service",
    Fault.INFRA: "a fault of the machine",
}
_AGES = (("d", 86400), ("h", 3600), ("min", 60))


def status_word(status: str) -> str:
    """A word of a newer service is said as it is."""
    return STATUS_WORDS.get(status, status)


def status_tone(status: str) -> str:
    """The class of a badge."""
    return _TONES.get(status, "off")


def phase_word(phase: str) -> str:
    return _PHASE_WORDS.get(phase, phase)


def fault_word(fault: str) -> str:
    return _FAULT_WORDS.get(fault, fault)


def number(value: float | None, digits: int = 3) -> str:
    """
    >>> [number(value) for value in (None, 0.5625, 12345.6, 1234, 2.5e6, 0.00012)]
    ['–', '0.563', '12.3k', '1,234', '2.5M', '1.2e-4']
    """
    if value is None or not isfinite(value):
        return "–"
    size = abs(value)
    if float(value).is_integer() and size < 1e6:
        return f"{int(value):,}"
    if size >= 1e6:
        return f"{_rounded(value / 1e6, 3)}M"
    if size >= 1e4:
        return f"{_rounded(value / 1e3, 3)}k"
    if size >= 1e3:
        return f"{floor(value + 0.5):,}"
    if size < 1e-3:
        return re.sub(r"e([+-])0+", r"e\1", f"{value:.1e}")
    return _rounded(value, digits)


def _rounded(value: float, digits: int) -> str:
    """To so many significant digits, halves away from zero, without zeros at the end."""
    text = f"{Context(prec=digits, rounding=ROUND_HALF_UP).create_decimal(Decimal(value)):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """
    >>> [duration(seconds) for seconds in (0.251, 75, 7380, 200_000)]
    ['0.25 s', '1 min 15 s', '2 h 3 min', '2 d 7 h']
    """
    if not isfinite(seconds):
        return "–"
    if seconds < 10:
        return f"{number(max(0.0, seconds), 2)} s"
    whole = floor(seconds + 0.5)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def clock(time: datetime) -> str:
    return f"{time.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def age(time: datetime, now: datetime) -> str:
    seconds = (now - time).total_seconds()
    return next((f"{int(seconds // size)} {unit} ago" for unit, size in _AGES if seconds >= size), "just now")
