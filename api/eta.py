"""How long a job would take, by the pace of the latest run that is comparable; and how long those that run still take."""

from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from api import curves
from api.curves import Axis
from api.models import TERMINAL, Job, StepMetrics
from api.rollup import summand
from trainer.config import JobSpec

_DECIDES = ("model", "rollout", "updates_per_batch", "epochs_per_batch", "resources")  # what a step costs
_LATEST = 20  # steps whose pace is a run's own


def seconds(session: Session, resolved: JobSpec) -> float | None:
    """Steps times the mean `step_time` of the latest comparable run; None where there is none, and start-up is not in it."""
    spec = resolved.model_dump(mode="json")
    same = Job.resolved_spec.contains({part: spec[part] for part in _DECIDES})
    limited = Job.resolved_spec["max_drift"].as_float()  # absent from specs that are older than it
    same_limit = limited.is_(None) if resolved.max_drift is None else limited == resolved.max_drift
    query = select(Job.id).where(same, same_limit, Job.step > 0).order_by(Job.created_at.desc()).limit(1)
    like = session.scalar(query)
    if like is None:
        return None
    paces = curves.buckets(session, like, ["step_time"], Axis.STEP, None, None, 1).series["step_time"].mean
    return None if not paces or paces[0] is None else paces[0] * resolved.steps


def seconds_left(session: Session, jobs: Sequence[Job]) -> dict[str, float]:
    """Of the jobs that have done a step and have not ended: the steps left times the mean `step_time` of the latest ones."""
    begun = [job.id for job in jobs if job.step > 0 and job.status not in TERMINAL]
    if not begun:
        return {}
    latest = (StepMetrics.step > Job.step - _LATEST, StepMetrics.step <= Job.step)
    took = summand(StepMetrics.metrics["step_time"].as_float())
    pace = func.sum(took) / func.nullif(func.count(took), 0)  # avg sums up squares too, which may be too large
    query = select(Job.id, (Job.steps - Job.step) * pace).join(StepMetrics, StepMetrics.job_id == Job.id)
    found = session.execute(query.where(Job.id.in_(begun), *latest).group_by(Job.id).having(pace.is_not(None)))
    return {job_id: float(seconds) for job_id, seconds in found}
