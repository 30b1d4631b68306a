"""Looks at what a spec points to before a job is made of it, so that a mistake costs a second and not a queue."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path

from sqlalchemy.orm import Session

from api.benchmarks import registered
from api.graders import check_allowed
from api.models import File, Json, is_id
from api.places import check_hub_id, check_place, exists
from api.settings import settings
from evaluator.benchmarks import evaluation_of, find_benchmark
from evaluator.config import Benchmark, EvaluationSpec
from trainer.config import Dataset, Evaluation, JobSpec, Model
from trainer.data import DATA_SUFFIXES, HUB_ID, check_sources, is_local, iter_problems
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
            "model": _resolve_model(session, spec.model),
            "dataset": _resolve_dataset(session, spec.dataset),
            "evaluation": _resolve_evaluation(session, spec.evaluation),
        }
    )
    _check_once(_with_sources_only(resolved), _stamp(resolved))
    for number, grader in enumerate(resolved.rewards):
        check_allowed(grader, f"rewards.{number}")
    return Plan(spec, resolved, _plan_evaluation(session, resolved))


def _with_sources_only(spec: JobSpec) -> JobSpec:
    return JobSpec(model=spec.model, dataset=spec.dataset)


@lru_cache(maxsize=64)
def _check_once(spec: JobSpec, _stamp: tuple[int, ...]) -> None:
    """`check_sources`, once while the files are the same: a burst of jobs on one data set reads it once."""
    check_sources(spec, _ROWS)


def _stamp(spec: JobSpec) -> tuple[int, ...]:
    """Changes with the files that are looked at."""
    files = (Path(spec.dataset.path), Path(spec.model.path) / "config.json")
    known = [file.stat() for file in files if file.exists()]
    return tuple(number for stat in known for number in (stat.st_ino, stat.st_mtime_ns, stat.st_size))


def _plan_evaluation(session: Session, job: JobSpec) -> EvaluationSpec | None:
    if not job.evaluation.benchmarks:
        return None
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
    return evaluation_of(job, job.model, known, cache)


def _check_rows(benchmark: Benchmark, param: str) -> None:
    if not is_local(benchmark.path):
        return
    try:
        list(islice(iter_problems(benchmark, param), _ROWS))
    except SpecError as error:  # its place in the benchmark's own entry, which the user did not write
        raise SpecError(param, error.message) from error


def _resolve_model(session: Session, model: Model) -> Model:
    return model.model_copy(update={"path": _place_or_hub_id(session, model.path, model.revision, "model.path")})


def _resolve_dataset(session: Session, dataset: Dataset) -> Dataset:
    return dataset.model_copy(update={"path": resolve_rows(session, dataset.path, dataset.revision, "dataset.path")})


def resolve_rows(session: Session, rows: str, revision: str | None, param: str) -> str:
    """Where rows are: the file of an uploaded id, a path made absolute, or a hub id as it is. Raises SpecError at `param`."""
    return _uploaded(session, rows, param) if _is_file_id(rows) else _place_or_hub_id(session, rows, revision, param)


def _is_file_id(text: str) -> bool:
    return text.startswith(_UPLOADED) and "/" not in text and Path(text).suffix not in DATA_SUFFIXES


def _uploaded(session: Session, file_id: str, param: str) -> str:
    file = session.get(File, file_id, with_for_update={"read": True}) if is_id("file", file_id) else None
    if file is None:
        raise SpecError(param, f"no uploaded file has the id {file_id!r}")
    return str(settings().data_dir.resolve() / file.path)


def _place_or_hub_id(session: Session, text: str, revision: str | None, param: str) -> str:
    """An absolute path, links followed, or the hub id as it is."""
    reads_as_hub_id = HUB_ID.fullmatch(text) and Path(text).suffix not in DATA_SUFFIXES
    if reads_as_hub_id and not exists(text, param):
        check_hub_id(text, revision, param)
        return text
    return str(check_place(session, text, param))


def _resolve_evaluation(session: Session, evaluation: Evaluation) -> Evaluation:
    found = [_resolve_benchmark(session, name, number) for number, name in enumerate(evaluation.benchmarks)]
    return evaluation.model_copy(update={"benchmarks": tuple(found)})


def _resolve_benchmark(session: Session, name: str, number: int) -> str:
    param = f"evaluation.benchmarks.{number}"
    if _is_file_id(name):
        return _uploaded(session, name, param)
    is_name = "/" not in name and Path(name).suffix not in DATA_SUFFIXES
    return name if is_name else str(check_place(session, name, param))
