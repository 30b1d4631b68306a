"""Algorithm comparisons: one base spec, several algorithms and seeds, a job for each pair."""

from typing import Annotated, Any

from pydantic import Field, model_validator
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from api import record
from api.compare import run_scores
from api.errors import not_found
from api.models import Comparison, ComparisonJob, Job, Json, new_id
from api.preflight import plan
from evaluator.report import report
from trainer.config import JobSpec
from trainer.strict import Listed, SpecError, Strict

MOST_JOBS = 100


class Arm(Strict):
    """One algorithm of a comparison."""

    algorithm: Annotated[dict[str, Any], Field(description="As `algorithm` of a job spec")]
    label: Annotated[str | None, Field(min_length=1, max_length=64, description="In the report; its type if left out")] = None
    overrides: Annotated[
        dict[str, Any],
        Field(default_factory=dict, description="Further keys of the job spec that belong to this algorithm: `loss`, `kl`"),
    ]

    @property
    def name(self) -> str:
        return self.label or str(self.algorithm.get("type"))


class ComparisonSpec(Strict):
    """A job for each algorithm and seed; the first algorithm is what the others are compared with."""

    name: Annotated[str | None, Field(max_length=32)] = None
    base: Annotated[dict[str, Any], Field(description="A job spec; its algorithm, seed and name are replaced")]
    algorithms: Annotated[Listed[tuple[Arm, ...]], Field(min_length=1)]
    seeds: Annotated[Listed[tuple[Annotated[int, Field(ge=0, lt=2**31)], ...]], Field(min_length=1)] = (0,)

    @model_validator(mode="after")
    def _jobs_differ(self) -> "ComparisonSpec":
        names = [arm.name for arm in self.algorithms]
        if len(set(names)) < len(names):
            raise ValueError(f"algorithms: two have one label ({', '.join(names)}); give each its own `label`")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: one is there twice ({', '.join(map(str, self.seeds))})")
        if len(names) * len(self.seeds) > MOST_JOBS:
            raise ValueError(f"algorithms x seeds are {len(names) * len(self.seeds)} jobs; at most {MOST_JOBS}")
        return self

    def job(self, arm: Arm, seed: int) -> JobSpec:
        """The spec of one job. Raises SpecError at its place in this document."""
        name = "/".join([*([self.name] if self.name else []), arm.name])[:56] + f"/{seed}"
        place = f"algorithms.{self.algorithms.index(arm)}"
        try:
            return JobSpec.parse({**self.base, **arm.overrides, "algorithm": arm.algorithm, "seed": seed, "name": name})
        except SpecError as error:
            param = error.param or ""
            head = param.partition(".")[0]
            where = place if head == "algorithm" else f"{place}.overrides" if head in arm.overrides else "base"
            raise SpecError(f"{where}.{param}" if param else where, error.message) from error


def create(session: Session, spec: ComparisonSpec) -> str:
    """Queue every job of the comparison, or none; returns its id."""
    comparison_id = new_id("comparison")
    document = spec.model_dump(mode="json")
    session.execute(insert(Comparison).values(id=comparison_id, name=spec.name, spec=document))
    for position, arm in enumerate(spec.algorithms):
        for seed in spec.seeds:
            planned = plan(session, spec.job(arm, seed))
            job_id = record.create_job(session, *planned.as_json())
            row = {"comparison_id": comparison_id, "job_id": job_id, "position": position, "label": arm.name, "seed": seed}
            session.execute(insert(ComparisonJob).values(row))
    return comparison_id


def find(session: Session, comparison_id: str) -> Comparison:
    """The comparison; an ApiError 404 where there is none."""
    found = session.get(Comparison, comparison_id)
    if found is None:
        raise not_found("comparison", comparison_id)
    return found


def jobs_of(session: Session, comparison_id: str) -> list[tuple[ComparisonJob, Job]]:
    """In the order of the algorithms and then of the seeds."""
    query = select(ComparisonJob, Job).join(Job, Job.id == ComparisonJob.job_id)
    ordered = query.where(ComparisonJob.comparison_id == comparison_id).order_by(ComparisonJob.position, ComparisonJob.seed)
    return [(member, job) for member, job in session.execute(ordered).all()]


def newest(session: Session, limit: int) -> list[Comparison]:
    """The newest comparisons, newest first."""
    return list(session.scalars(select(Comparison).order_by(Comparison.created_at.desc(), Comparison.id.desc()).limit(limit)))


def current_report(session: Session, comparison_id: str) -> Json:
    """The report as the record has it now: algorithms are runs, the mean over those of their seeds that are scored."""
    arms: dict[str, list[Job]] = {}
    for member, job in jobs_of(session, comparison_id):
        arms.setdefault(member.label, []).append(job)
    return report([run_scores(session, label, jobs) for label, jobs in arms.items()])
