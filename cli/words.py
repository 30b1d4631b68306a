"""A job in words."""

from cli.client import Json
from cli.curves import sparkline
from cli.run import SHOWN, Run

_QUIET = {"phase"}  # the current phase is shown; `mhpo events --phases` has them all


def is_loud(event: Json) -> bool:
    """Whether a person wants a line for it."""
    return event["type"] not in _QUIET


def loud(news: list[Json]) -> list[Json]:
    """The events among the news that a person wants a line for."""
    return [each for each in news if each["object"] == "event" and is_loud(each)]


def event_line(event: Json) -> str:
    """`13:05:12 warn step 12: grader math raised on 3 completions`."""
    clock = event["created_at"][11:19]
    level = "" if event["level"] == "info" else f"{event['level']} "
    step = "" if event["step"] is None else f"step {event['step']}: "
    return f"{clock} {level}{step}{event['message']}"


def progress_line(run: Run) -> str:
    """`step 12/110 11% | about 1 m 50 s left | running (learning) | reward 0.42 ▁▂▃ | ...`."""
    done, steps = run.job["step"], run.job["steps"]
    parts = [f"step {done}/{steps} {100 * done // steps}%"]
    left = run.seconds_left()
    if left is not None:
        parts.append(f"about {duration(left)} left")
    parts.append(state(run.job))
    for name in SHOWN:
        values = [value for _, value in run.curve(name)]
        if values:
            parts.append(f"{name} {values[-1]:.3g} {sparkline(values, 12)}")
    return " | ".join(parts)


def progress(job: Json) -> str:
    """`step 12/110`."""
    return f"step {job['step']}/{job['steps']}"


def state(job: Json) -> str:
    """The status, with the phase while it runs and the reason where there is one."""
    runs = job["finished_at"] is None
    stopping = ", asked to stop" if job["cancel_requested"] and runs else ""
    attempt = f", attempt {job['attempt']}" if job["attempt"] > 1 else ""
    phase = f" ({job['phase']})" if job["phase"] and runs else ""
    return f"{job['status']}{phase}{attempt}{stopping}{': ' + reason(job) if job['status_reason'] else ''}"


def reason(job: Json) -> str:
    """Why it is in its status, in one line: a traceback or the end of a log is told by the event."""
    return str(job["status_reason"]["message"]).partition("\n")[0] if job["status_reason"] else ""


def hint(job: Json) -> str:
    """What to do about it; empty where nobody knows."""
    return str((job["status_reason"] or {}).get("hint") or "")


def duration(seconds: float) -> str:
    """`50 s`, `3 m 05 s`, `2 h 10 m`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} m"
    return f"{minutes} m {rest:02d} s" if minutes else f"{rest} s"


def size(amount: float) -> str:
    """`512 B`, `1.4 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"
