"""What the page's documents show before any script has run, and the parts of it that scripts ask for anew.

All text is escaped by the templates. Nothing here is written, and a part costs the same whatever the length of a run.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from sqlalchemy.orm import Session

from api import job_warnings, record_read
from api.eta import seconds_left
from api.models import TERMINAL, Job, Status
from api.outlines import Outline, outlines
from api.page import words
from api.page.drawing import Box, Drawing

PAGE = 50  # jobs of the list that are shown at once
_SPARK = (130, 30)  # width and height
_SPARK_POINTS = 60
_CURVE = (1000, 200)
_CURVE_POINTS = 150
_AIR = 0.06  # as the page's charts have above and below
_ACTIONS = {  # of a run's page: in which statuses each can be asked for
    "pause": (Status.RUNNING, Status.QUEUED),
    "resume": (Status.PAUSED,),
    "cancel": tuple(status for status in Status if status not in TERMINAL),
    "retry": (Status.FAILED, Status.CANCELLED),
}

TEMPLATES = Environment(
    loader=PackageLoader("api.page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
TEMPLATES.filters |= {
    "number": words.number,
    "duration": words.duration,
    "status_word": words.status_word,
    "status_tone": words.status_tone,
    "phase_word": words.phase_word,
    "fault_word": words.fault_word,
    "clock": words.clock,
    "age": lambda time: words.age(time, datetime.now(UTC)),
}
TEMPLATES.globals |= {"statuses": words.STATUS_WORDS, "ended": TERMINAL, "curve_size": _CURVE}


@dataclass(frozen=True, slots=True)
class Spark:
    """A curve in the size of a word."""

    path: str
    first: float
    last: float

    @classmethod
    def of(cls, curve: Outline) -> "Spark | None":
        if not curve:
            return None
        drawing = Drawing(*_SPARK, Box.around(curve, air=_AIR))
        return cls(drawing.line(curve), curve[0][1], curve[-1][1])


@dataclass(frozen=True, slots=True)
class Row:
    """A job in the list."""

    job: Job
    warnings: int
    reward: Spark | None
    seconds_left: float | None

    @property
    def place(self) -> str:
        """What the job asks for, and where it runs: `cuda · worker-1 · GPU 0, 1`."""
        gpus = f"GPU {', '.join(map(str, self.job.lease_devices))}" if self.job.lease_devices else None
        return " · ".join(filter(None, (self.job.spec["resources"]["device"], self.job.lease_owner, gpus)))

    @property
    def searched(self) -> str:
        """What a search looks through."""
        spec = self.job.spec
        parts = (self.job.name, self.job.id, spec["model"]["path"], spec["dataset"]["path"], spec["algorithm"]["type"])
        return " ".join(filter(None, (*parts, self.job.status))).lower()


@dataclass(frozen=True, slots=True)
class Curve:
    """The reward up to the job's step, with one standard deviation within a group around it."""

    line: str
    band: str | None
    box: Box
    last: float

    @classmethod
    def of(cls, reward: Outline, spread: Outline) -> "Curve | None":
        if not reward:
            return None
        width = dict(spread)
        known = [(step, value, width[step]) for step, value in reward if step in width]
        low = [(step, value - std) for step, value, std in known]
        high = [(step, value + std) for step, value, std in known]
        box = Box.around(reward, low, high, air=_AIR)
        drawing = Drawing(*_CURVE, box)
        return cls(drawing.line(reward), drawing.band(low, high) if known else None, box, reward[-1][1])


def rows(session: Session, status: Status | None = None, after: str | None = None) -> Markup:
    """The table of a page of jobs, newest first: of those behind the job `after`. Raises UnknownJobError."""
    last = None if after is None else record_read.find_job(session, after)
    jobs, has_more = record_read.page(session, Job, last, PAGE, record_read.with_status(status))
    warned = job_warnings.counts(session, jobs)
    curves = outlines(session, jobs, ["reward"], _SPARK_POINTS)
    left = seconds_left(session, jobs)
    shown = [Row(job, warned[job.id], Spark.of(curves[job.id].get("reward", [])), left.get(job.id)) for job in jobs]
    return _render("rows.html", rows=shown, has_more=has_more)


def top(session: Session, job: Job) -> Markup:
    """A run's head, with what its status allows to do, and its warnings."""
    end = job.finished_at or datetime.now(UTC)
    done = {"cancel"} if job.cancel_requested else set()
    return _render(
        "top.html",
        job=job,
        actions=[action for action, statuses in _ACTIONS.items() if job.status in statuses and action not in done],
        took=None if job.started_at is None else (end - job.started_at).total_seconds(),
        seconds_left=seconds_left(session, [job]).get(job.id),
        reward=record_read.measured(session, job, "reward"),
        warnings=job_warnings.of_job(session, job),
    )


def jobs_page(session: Session | None) -> Markup:
    """The page of all jobs; without a session none of them."""
    return _render("jobs.html", rows=None if session is None else rows(session))


def run_page(session: Session | None, job_id: str) -> Markup:
    """The page of a run as it is first seen; without a session nothing of the run. Raises UnknownJobError."""
    if session is None:
        return _render("run.html", top=None, curve=None)
    job = record_read.find_job(session, job_id)
    found = outlines(session, [job], ["reward", "reward_std"], _CURVE_POINTS)[job.id]
    curve = Curve.of(found.get("reward", []), found.get("reward_std", []))
    return _render("run.html", top=top(session, job), curve=curve)


def _render(template: str, **values: Any) -> Markup:
    return Markup(TEMPLATES.get_template(template).render(**values))
