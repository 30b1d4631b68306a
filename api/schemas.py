"""The answers of the API. Times are ISO 8601 in UTC, by the database's clock."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.models import Checkpoint, Evaluation, Event, File, Job, Json, Level, ModelKind, Phase, Sample, Status
from api.settings import settings
from evaluator.config import Benchmark

T = TypeVar("T")


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Listing(View, Generic[T]):
    """A page: go on with `after` = the last item's id while `has_more`."""

    object: Literal["list"] = "list"
    data: list[T]
    has_more: bool = False


class ReasonView(View):
    """Why a job is in its status: whose fault it is, and whether the same spec may succeed when tried again."""

    code: str
    fault: Literal["user", "system", "infra"]
    message: str
    retryable: bool
    hint: Annotated[str | None, Field(description="What to do about it")] = None


class LeasedView(View):
    id: str
    status: Status
    phase: Phase | None
    status_reason: ReasonView | None
    attempt: Annotated[int, Field(description="How often a worker started it")]
    priority: Annotated[int, Field(description="Higher goes first, then older")]
    not_before: Annotated[datetime | None, Field(description="Queued after a crash, it waits until then")]
    cancel_requested: bool
    pause_requested: Annotated[bool, Field(description="It runs and is to be paused")]
    worker: Annotated[str | None, Field(validation_alias="lease_owner", description="Who runs it now")]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ChangeView(View):
    """A place where a job's spec differs from its parent's; null stands for a key that is not there."""

    path: str
    before: Annotated[Any, Field(alias="from")]
    after: Annotated[Any, Field(alias="to")]


class JobView(LeasedView):
    object: Literal["job"] = "job"
    name: str | None
    step: Annotated[int, Field(description="The last step recorded")]
    steps: int
    folder: Annotated[str, Field(description="The run folder, on the machine that runs the service")]
    spec: Annotated[dict[str, Any], Field(description="The job spec with its defaults filled in")]
    parent_id: Annotated[str | None, Field(description="The job that this one was retried or cloned from")]
    diff: Annotated[list[ChangeView] | None, Field(description="What differs from the parent's spec")]

    @classmethod
    def of(cls, job: Job) -> Self:
        columns = {column.name: getattr(job, column.name) for column in Job.__table__.columns}
        return cls.model_validate({**columns, "folder": str(settings().run_folder(job.id))})


class EvaluationView(LeasedView):
    object: Literal["evaluation"] = "evaluation"
    job_id: str
    model_kind: ModelKind
    step: Annotated[int, Field(description="Of the checkpoint; 0 for the base model")]
    spec: dict[str, Any]
    result: Annotated[dict[str, Any] | None, Field(description="Scores by benchmark, once it has succeeded")]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        return cls.model_validate(evaluation)


class EventView(View):
    object: Literal["event"] = "event"
    id: int
    attempt: Annotated[int, Field(description="0 for what belongs to no attempt")]
    step: int | None
    level: Level
    type: str
    message: str
    data: dict[str, Any]
    reported_at: Annotated[datetime | None, Field(description="The run's own clock, where the run wrote the event")]
    created_at: datetime

    @classmethod
    def of(cls, event: Event) -> Self:
        return cls.model_validate(event)


class CheckpointView(View):
    object: Literal["checkpoint"] = "checkpoint"
    step: int
    attempt: int
    final: bool
    path: Annotated[str, Field(description="A Hugging Face model folder, on the machine that runs the service")]
    available: Annotated[bool, Field(description="False where the folder has been removed to keep only the newest")]
    created_at: datetime

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Self:
        folder = settings().run_folder(checkpoint.job_id) / checkpoint.path
        return cls(
            step=checkpoint.step,
            attempt=checkpoint.attempt,
            final=checkpoint.final,
            path=str(folder),
            available=(folder / "COMPLETE").exists(),
            created_at=checkpoint.created_at,
        )


class SampleView(View):
    object: Literal["sample"] = "sample"
    step: int
    attempt: int
    problem_id: str
    prompt: str
    answer: str
    completions: list[dict[str, Any]]

    @classmethod
    def of(cls, sample: Sample) -> Self:
        return cls.model_validate(sample)


class Series(View):
    """One curve: `value[i]` was measured at `step[i]`; steps ascend. null stands for a value that was not finite."""

    step: list[int]
    value: list[float | None]


class MetricsView(View):
    object: Literal["metrics"] = "metrics"
    names: Annotated[list[str], Field(description="Every metric that these steps have")]
    series: dict[str, Series]


class FileView(View):
    object: Literal["file"] = "file"
    id: str
    filename: str
    format: Literal["jsonl", "parquet"]
    bytes: int
    sha256: str
    rows: int
    columns: list[str]
    created_at: datetime

    @classmethod
    def of(cls, file: File) -> Self:
        return cls.model_validate(file)


class BenchmarkView(View):
    """A named benchmark: where its rows are and how they are asked and graded."""

    object: Literal["benchmark"] = "benchmark"
    name: str
    path: str
    revision: str | None
    split: str
    licence: str | None
    grader: Json

    @classmethod
    def of(cls, benchmark: Benchmark) -> Self:
        return cls.model_validate({**benchmark.model_dump(), "grader": benchmark.grader.model_dump()})


class Health(View):
    status: Literal["ok", "ready"]


class Fault(View):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: Annotated[str | None, Field(description="The dotted place of the fault in what was sent")]
    code: str


class ErrorView(View):
    """Every error has this form."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "error": {
                    "message": "Input should be greater than or equal to 2; got 1",
                    "type": "invalid_request_error",
                    "param": "rollout.group_size",
                    "code": "invalid_spec",
                }
            }
        }
    )

    error: Fault
