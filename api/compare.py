"""Jobs side by side, read from the record: what evaluator/report.py makes a report of."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from api import record_read
from api.models import Evaluation, Job, Json, ModelKind, Status, StepMetrics
from evaluator.report import Curve, RunScores, Scored, mean_curve, mean_of_seeds, report, scored

CURVES = ("reward", "grad_norm", "completions/mean_length", "entropy")


def compare_jobs(session: Session, job_ids: Sequence[str]) -> Json:
    """The report of some jobs, each a run of its own. Raises UnknownJobError."""
    jobs = [record_read.find_job(session, job_id) for job_id in job_ids]
    names = [_name(job) for job in jobs]
    labels = [f"{name} ({job.id[-6:]})" if names.count(name) > 1 else name for name, job in zip(names, jobs, strict=True)]
    return report([run_scores(session, label, [job]) for label, job in zip(labels, jobs, strict=True)])


def run_scores(session: Session, label: str, jobs: Sequence[Job]) -> RunScores:
    """One run of the report: the mean over its jobs, those that are scored already."""
    base = [_scores(session, job, ModelKind.BASE) for job in jobs]
    trained = [_scores(session, job, ModelKind.CHECKPOINT) for job in jobs]
    curves = {name: mean_curve([curve for job in jobs if (curve := _curve(session, job, name))]) for name in CURVES}
    return RunScores(label, tuple(job.id for job in jobs), _means(base), _means(trained), curves)


def _means(scores: Sequence[dict[str, Scored]]) -> dict[str, Scored]:
    names = dict.fromkeys(name for one in scores for name in one)
    found = {name: mean_of_seeds([one[name] for one in scores if name in one]) for name in names}
    return {name: score for name, score in found.items() if score is not None}


def _scores(session: Session, job: Job, kind: ModelKind) -> dict[str, Scored]:
    """Of the latest model of this kind that is scored, by benchmark."""
    done = (Evaluation.job_id == job.id, Evaluation.model_kind == kind, Evaluation.status == Status.SUCCEEDED)
    result = session.scalar(select(Evaluation.result).where(*done).order_by(Evaluation.step.desc()).limit(1))
    benchmarks = {} if result is None else result["benchmarks"]
    return {name: scored(score) for name, score in benchmarks.items() if "problem_scores" in score}


def _curve(session: Session, job: Job, name: str) -> Curve:
    """A metric up to the job's step; of a step that was run twice the latest attempt counts."""
    value = StepMetrics.metrics[name].as_float()
    query = (
        select(StepMetrics.step, value)
        .where(StepMetrics.job_id == job.id, StepMetrics.step <= job.step, StepMetrics.metrics.has_key(name))
        .order_by(StepMetrics.step, StepMetrics.attempt)
    )
    latest = {step: number for step, number in session.execute(query).all() if number is not None}
    return sorted(latest.items())


def _name(job: Job) -> str:
    return job.name or f"{job.spec['algorithm']['type']} {job.id[-6:]}"
