"""Looks at what a spec points to before a job is made of it, so that a mistake costs a second and not a queue."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sqlalchemy.orm import Session

from api.benchmarks import registered
from api.models import File, Json, is_id
from api.settings import settings
from evaluator.benchmarks import evaluation_of, find_benchmark
from evaluator.config import Benchmark, EvaluationSpec
from trainer.config import Dataset, Evaluation, JobSpec, Model, MultiGrader
from trainer.data import check_sources, is_local, iter_problems
from trainer.grader_config import PythonGrader
from trainer.strict import SpecError

_UPLOADED = "file-"
_ROWS = 1000  # of each source that are read


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded of a job: what the user asked for, what runs, and how the base model is scored."""

    spec: JobSpec
    resolved: JobSpec
    evaluation: EvaluationSpec | None

    def as_json(self) -> tuple[Json, Json, Json | None]:
        evaluation = None if self.evaluation is None else self.evaluation.model_dump(mode="json")
        return self.spec.model_dump(mode="json"), self.resolved.model_dump(mode="json"), evaluation


def plan(session: Session, spec: JobSpec) -> Plan:
    """Check the model, the dataset and the benchmarks of `spec`; raises SpecError with the dotted place of the first fault."""
    resolved = spec.model_copy(
        update={
            "model": _resolve_model(spec.model),
            "dataset": _resolve_dataset(session, spec.dataset),
            "evaluation": _resolve_evaluation(spec.evaluation),
        }
    )
    check_sources(resolved, _ROWS)
    _check_graders(resolved)
    return Plan(spec, resolved, _plan_evaluation(session, resolved))


def _check_graders(job: JobSpec) -> None:
    """Raises SpecError for a grader that this deployment does not run."""
    for number, grader in enumerate(job.rewards):
        parts = grader.graders.items() if isinstance(grader, MultiGrader) else [("", grader)]
        for name, part in parts:
            if isinstance(part, PythonGrader) and not settings().python_graders:
                place = f"rewards.{number}.graders.{name}" if name else f"rewards.{number}"
                message = "python graders are switched off here; whoever runs the service can set MHPO_PYTHON_GRADERS=1"
                raise SpecError(f"{place}.type", message)


def _plan_evaluation(session: Session, job: JobSpec) -> EvaluationSpec | None:
    known = registered(session)
    names: set[str] = set()
    for number, asked in enumerate(job.evaluation.benchmarks):
        param = f"evaluation.benchmarks.{number}"
        benchmark = find_benchmark(asked, param, known)
        if benchmark.name in names:
            raise SpecError(param, f"a second benchmark has the name {benchmark.name!r}")
        names.add(benchmark.name)
        _check_rows(benchmark, param)
    cache = str(settings().data_dir.resolve() / "scores")
    return evaluation_of(job, job.model, known, cache) if names else None


def _check_rows(benchmark: Benchmark, param: str) -> None:
    if not is_local(benchmark.path):
        return
    try:
        list(islice(iter_problems(benchmark, param), _ROWS))
    except SpecError as error:  # its place in the benchmark's own entry, which the user did not write
        raise SpecError(param, error.message) from error


def _resolve_model(model: Model) -> Model:
    folder = _path(model.path, "model.path")
    return model.model_copy(update={"path": str(folder.resolve())}) if folder.is_dir() else model


def _resolve_dataset(session: Session, dataset: Dataset) -> Dataset:
    return dataset.model_copy(update={"path": resolve_rows(session, dataset.path, "dataset.path")})


def resolve_rows(session: Session, rows: str, param: str) -> str:
    """Where rows are: the file of an uploaded id, a path made absolute, or a hub id as it is. Raises SpecError at `param`."""
    path = _path(rows, param)
    if rows.startswith(_UPLOADED) and "/" not in rows and not path.exists():
        file = session.get(File, rows) if is_id("file", rows) else None
        if file is None:
            raise SpecError(param, f"no uploaded file has the id {rows!r}")
        return str(settings().data_dir.resolve() / file.path)
    return str(path.resolve()) if is_local(rows) else rows


def _resolve_evaluation(evaluation: Evaluation) -> Evaluation:
    found = [_resolve_benchmark(name, number) for number, name in enumerate(evaluation.benchmarks)]
    return evaluation.model_copy(update={"benchmarks": tuple(found)})


def _resolve_benchmark(name: str, number: int) -> str:
    path = _path(name, f"evaluation.benchmarks.{number}")
    return str(path.resolve()) if path.is_file() else name


def _path(text: str, param: str) -> Path:
    """Raises SpecError for what no file system can hold (a name that is too long)."""
    path = Path(text)
    try:
        path.exists()
    except OSError as error:
        raise SpecError(param, f"this cannot be a path: {error.strerror}") from error
    return path
