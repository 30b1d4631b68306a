"""What an evaluation found, written where people look: an event, the metrics of its step, and its checkpoint."""

from typing import Any

from sqlalchemy import func, insert, literal, select, text, update
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Session

from api.models import Checkpoint, Evaluation, Job, Json, ModelKind, StepMetrics
from api.record import Claim
from api.rollup import roll_up
from api.storable import storable
from api.telling import add_event


def store_scores(session: Session, claim: Claim, result: Json) -> None:
    """Record an evaluation's result beside the run that it is of; in the transaction that ends the evaluation.

    A step's own metrics are in the record before its checkpoint is, so what is added to them here stays.
    """
    kind, step = session.execute(select(Evaluation.model_kind, Evaluation.step).where(Evaluation.id == claim.id)).one()
    benchmarks = {name: score for name, score in result["benchmarks"].items() if "avg" in score}
    if not benchmarks:
        return
    told = {name: summary(score) for name, score in benchmarks.items()}
    metrics = {f"eval/{name}/{key}": value for name, score in told.items() for key, value in curves(score).items()}
    _add_metrics(session, claim.job_id, step, metrics)
    if kind is ModelKind.CHECKPOINT:
        here = (Checkpoint.job_id == claim.job_id, Checkpoint.step == step)
        session.execute(update(Checkpoint).where(*here).values(scores=storable(told)))
    model = "The base model" if kind is ModelKind.BASE else f"The checkpoint of step {step}"
    message = f"{model} scores " + ", ".join(f"{_shown(score)} on {name}" for name, score in told.items()) + "."
    data = {"evaluation_id": claim.id, "model_kind": kind, "step": step, "benchmarks": told}
    add_event(session, claim.job_id, 0, "scores", storable(message), storable(data))


def summary(score: Json) -> Json:
    """The numbers of a benchmark that a table has room for."""
    held = score.get("contamination")
    return {
        **{key: score.get(key) for key in ("avg", "ci_low", "ci_high", "n", "maj", "mean_tokens", "truncated", "no_answer")},
        "pass_at_n": score["pass_at"][str(score["n"])],
        "content_hash": score.get("content_hash"),
        "contaminated": None if held is None else held["contaminated"],
    }


def curves(score: Json) -> dict[str, float]:
    """Those that make a curve over the run's checkpoints."""
    keys = ("avg", "ci_low", "ci_high", "maj", "pass_at_n", "mean_tokens", "truncated", "no_answer")
    return {key: float(score[key]) for key in keys if score[key] is not None}


def _add_metrics(session: Session, job_id: str, step: int, metrics: dict[str, Any]) -> None:
    # The job's row orders this with the run's own metrics, which are rolled up too.
    last = session.scalars(select(Job.step).where(Job.id == job_id).with_for_update(key_share=True)).one()
    here = (StepMetrics.job_id == job_id, StepMetrics.step == step)
    latest = select(func.max(StepMetrics.attempt)).where(*here).scalar_subquery()
    added = literal(metrics, JSONB)
    changed = session.execute(
        update(StepMetrics)
        .where(*here, StepMetrics.attempt == latest)
        .values(metrics=StepMetrics.metrics.op("||")(added), seq=text("DEFAULT"))
        .returning(StepMetrics.step)
        .execution_options(synchronize_session=False)
    ).all()
    if not changed:  # step 0, the base model's, has none of its own
        session.execute(
            insert(StepMetrics).values(job_id=job_id, attempt=0, step=step, metrics=metrics, reported_at=func.now())
        )
    if step <= last:
        roll_up(session, job_id, step, last, appended=False)


def _shown(score: Json) -> str:
    """`0.412 [0.310, 0.515] (avg@32)`"""
    bounds = "" if score["ci_low"] is None else f" [{score['ci_low']:.3f}, {score['ci_high']:.3f}]"
    return f"{score['avg']:.3f}{bounds} (avg@{score['n']})"
