"""What the warnings of a job look at, read out of the record: its first steps, its latest ones, and its validations."""

from collections import defaultdict

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import curves
from api.curves import Axis
from api.models import Job
from api.rollup import values
from api.warnings import FIRST, LOOKED_AT, RECENT, Curves, History, Validated

_VALIDATIONS = 100  # buckets that they are read in


def history_of(session: Session, job: Job) -> History:
    """The history of a job up to its step; costs the same whatever the length of the run."""
    rollout = job.spec["rollout"]
    validates = job.spec["dataset"]["validation_size"] > 0
    return History(
        step=job.step,
        first=_measured(session, job.id, 1, min(FIRST, job.step) + 1),
        recent=_measured(session, job.id, max(1, job.step - RECENT + 1), job.step + 1),
        validated=_validated(session, job.id) if validates else [],
        completions=rollout["prompts_per_step"] * rollout["group_size"],
        updates_per_batch=job.spec["updates_per_batch"],
        staleness=rollout["staleness"],
    )


def _measured(session: Session, job_id: str, first: int, end: int) -> Curves:
    """Each metric in the steps `first` to `end - 1`, those left out in which it was not finite."""
    point = values(job_id, first, end, list(LOOKED_AT)).c
    found: dict[str, list[float]] = defaultdict(list)
    for name, value in session.execute(select(point.name, point.value).order_by(point.step)):
        if value is not None:
            found[name].append(value)
    return found


def _validated(session: Session, job_id: str) -> list[Validated]:
    """Means over buckets where there are many; each is of the step of its last value."""
    series = curves.buckets(session, job_id, ["eval/reward", "reward"], Axis.STEP, None, None, _VALIDATIONS).series
    held_out, training = series["eval/reward"], series["reward"]
    means = dict(zip(training.step, training.mean or [], strict=True))
    return [
        Validated(step, reward, trained)
        for step, reward in zip(held_out.step, held_out.mean or [], strict=True)
        if reward is not None and (trained := _at(means, step)) is not None
    ]


def _at(means: dict[int, float | None], step: int) -> float | None:
    """The mean of the bucket that `step` lies in: the first that ends at it or behind it."""
    return next((mean for last, mean in means.items() if last >= step), None)
