"""Jobs, events and checkpoints in the form of OpenAI's fine-tuning API. What it has no word for is in fields named `x_...`."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Text, cast, literal, select, tuple_, union_all
from sqlalchemy.orm import Session

from api import curves
from api.curves import Axis
from api.models import DEFAULT_PROJECT, TERMINAL, Checkpoint, Event, Job, Json, OpenAIJob, Status, StepMetrics
from api.openai_spec import model_name
from api.schemas import View

_AUTO = {"batch_size": "auto", "learning_rate_multiplier": "auto", "n_epochs": "auto"}


class OpenAIListing(View):
    """A page in OpenAI's form: go on with `after` = the last item's id while `has_more`."""

    object: str = "list"
    data: list[dict[str, Any]]
    has_more: bool
    first_id: str | None = None
    last_id: str | None = None

    @classmethod
    def of(cls, data: list[Json], *, has_more: bool) -> "OpenAIListing":
        first, last = (data[0]["id"], data[-1]["id"]) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=first, last_id=last)


def job_views(session: Session, jobs: Sequence[Job]) -> list[Json]:
    """Jobs that were made by `POST /v1/jobs` too: their data set stands as the training file."""
    ids = [job.id for job in jobs]
    asked = {row.job_id: row.request for row in session.scalars(select(OpenAIJob).where(OpenAIJob.job_id.in_(ids)))}
    project = str(session.info.get("project", DEFAULT_PROJECT))
    return [_job(session, job, asked.get(job.id) or _as_request(job), project) for job in jobs]


def _as_request(job: Job) -> Json:
    """How a job of our own form would have been asked for."""
    graders = job.spec["rewards"]
    grader = graders[0] if len(graders) == 1 else {"type": "x_sum", "graders": graders}
    return {
        "model": job.spec["model"]["path"],
        "training_file": job.spec["dataset"]["path"],
        "validation_file": None,
        "method": {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": {}}},
        "suffix": job.name,
        "metadata": None,
    }


def _job(session: Session, job: Job, request: Json, project: str) -> Json:
    sent = request["method"]["reinforcement"]["hyperparameters"]
    done = job.status is Status.SUCCEEDED
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": _seconds(job.created_at),
        "finished_at": None if job.finished_at is None else _seconds(job.finished_at),
        "error": _error(job),
        "model": request["model"],
        "fine_tuned_model": model_name(request["model"], request["suffix"], job.id) if done else None,
        "hyperparameters": {name: sent.get(name, auto) for name, auto in _AUTO.items()},
        "method": request["method"],
        "organization_id": project,
        "result_files": [],
        "seed": job.spec["seed"],
        "status": str(job.status),
        "trained_tokens": _trained_tokens(session, job) if job.status in TERMINAL else None,
        "training_file": request["training_file"],
        "validation_file": request["validation_file"],
        "estimated_finish": None,
        "integrations": [],
        "metadata": request["metadata"],
        "user_provided_suffix": request["suffix"],
        "x_phase": None if job.phase is None else str(job.phase),
        "x_step": job.step,
        "x_steps": job.steps,
        "x_status_reason": job.status_reason,
    }


def _error(job: Job) -> Json | None:
    if job.status is not Status.FAILED or job.status_reason is None:
        return None
    return {"code": job.status_reason["code"], "message": job.status_reason["message"], "param": None}


def _trained_tokens(session: Session, job: Job) -> int | None:
    counted = curves.buckets(session, job.id, ["num_tokens"], Axis.STEP, None, None, 1).series["num_tokens"].last
    return int(counted[0]) if counted and counted[0] is not None else None


EVENT = "ftevent-"


def events(session: Session, job: Job, after: str | None, limit: int) -> OpenAIListing:
    """Events of the record and of each step, newest first; raises LookupError for an `after` that is no event of the job."""
    event = select(Event.created_at, literal("e").label("kind"), cast(Event.id, BigInteger).label("number")).where(
        Event.job_id == job.id
    )
    step = select(StepMetrics.created_at, cast(literal("m"), Text), StepMetrics.seq).where(StepMetrics.job_id == job.id)
    both = union_all(event, step).subquery()
    place = (both.c.created_at, both.c.kind, both.c.number)
    query = select(*place).order_by(*[column.desc() for column in place]).limit(limit + 1)
    if after is not None:
        kind, number = _event_key(after)
        here = session.execute(select(*place).where(both.c.kind == kind, both.c.number == number)).one_or_none()
        if here is None:
            raise LookupError(after)
        query = query.where(
            tuple_(*place) < tuple_(*[literal(part, column.type) for part, column in zip(here, place, strict=True)])
        )
    rows = session.execute(query).all()
    found = [_event(session, job, kind, number) for _, kind, number in rows[:limit]]
    return OpenAIListing(data=found, has_more=len(rows) > limit)


def _event_key(key: str) -> tuple[str, int]:
    kind, digits = key.removeprefix(EVENT)[:1], key.removeprefix(EVENT)[1:]
    if not key.startswith(EVENT) or kind not in {"e", "m"} or not digits.isdecimal() or len(digits) > 18:
        raise LookupError(key)
    return kind, int(digits)


def _event(session: Session, job: Job, kind: str, number: int) -> Json:
    if kind == "e":
        event = session.get_one(Event, number)
        data = {"step": event.step, **event.data}
        return _event_view(f"e{number}", event.created_at, str(event.level), event.message, "message", data)
    row = session.scalars(select(StepMetrics).where(StepMetrics.job_id == job.id, StepMetrics.seq == number)).one()
    data = {"step": row.step, "total_steps": job.steps, **_named_as_theirs(row.metrics), "x_metrics": row.metrics}
    message = f"Step {row.step}/{job.steps}"
    if row.metrics.get("reward") is not None:
        message += f", train mean reward={row.metrics['reward']:.2f}"
    return _event_view(f"m{number}", row.created_at, "info", message, "metrics", data)


def _event_view(key: str, at: datetime, level: str, message: str, kind: str, data: Json) -> Json:
    event = {"id": EVENT + key, "object": "fine_tuning.job.event", "created_at": _seconds(at)}
    return {**event, "level": level, "message": message, "type": kind, "data": data}


_THEIRS = {
    "reward": "train_mean_reward",
    "eval/reward": "full_valid_mean_reward",
    "loss": "train_loss",
    "completions/mean_length": "completion_tokens_mean",
}


def _named_as_theirs(metrics: Json) -> Json:
    return {theirs: metrics[ours] for ours, theirs in _THEIRS.items() if ours in metrics}


CHECKPOINT = "ftckpt-"


def checkpoints(session: Session, job: Job, after: str | None, limit: int) -> OpenAIListing:
    """Newest first; raises LookupError for an `after` that is no checkpoint's id."""
    query = select(Checkpoint).where(Checkpoint.job_id == job.id).order_by(Checkpoint.step.desc()).limit(limit + 1)
    if after is not None:
        step = after.removeprefix(f"{CHECKPOINT}{job.id}-")
        if not step.isdecimal() or len(step) > 18:
            raise LookupError(after)
        query = query.where(Checkpoint.step < int(step))
    rows = session.scalars(query).all()
    [view] = job_views(session, [job])
    found = [_checkpoint(session, job, view, row) for row in rows[:limit]]
    return OpenAIListing.of(found, has_more=len(rows) > limit)


def _checkpoint(session: Session, job: Job, view: Json, row: Checkpoint) -> Json:
    latest = select(StepMetrics.metrics).where(StepMetrics.job_id == job.id, StepMetrics.step == row.step)
    metrics = session.scalar(latest.order_by(StepMetrics.attempt.desc()).limit(1)) or {}
    return {
        "id": f"{CHECKPOINT}{job.id}-{row.step}",
        "object": "fine_tuning.job.checkpoint",
        "created_at": _seconds(row.created_at),
        "fine_tuned_model_checkpoint": model_name(view["model"], view["user_provided_suffix"], job.id, row.step),
        "fine_tuning_job_id": job.id,
        "step_number": row.step,
        "metrics": {"step": row.step, **_named_as_theirs(metrics)},
    }


def _seconds(at: datetime) -> int:
    return int(at.timestamp())
