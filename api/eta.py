"""How long a job would take, by the pace of the latest run that is comparable."""

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import curves
from api.curves import Axis
from api.models import Job
from trainer.config import JobSpec

_DECIDES = ("model", "rollout", "updates_per_batch", "epochs_per_batch", "resources")  # what a step costs


def seconds(session: Session, resolved: JobSpec) -> float | None:
    """Steps times the mean `step_time` of the latest comparable run; None where there is none, and start-up is not in it."""
    spec = resolved.model_dump(mode="json")
    same = Job.resolved_spec.contains({part: spec[part] for part in _DECIDES})
    query = select(Job.id).where(same, Job.step > 0).order_by(Job.created_at.desc()).limit(1)
    like = session.scalar(query)
    if like is None:
        return None
    paces = curves.buckets(session, like, ["step_time"], Axis.STEP, None, None, 1).series["step_time"].mean
    return None if not paces or paces[0] is None else paces[0] * resolved.steps
