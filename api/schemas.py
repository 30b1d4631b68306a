"""The answers of the API. Times are ISO 8601 in UTC, by the database's clock."""

from datetime import datetime
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from api.checkpoint_files import digest, folder_of, is_available
from api.models import Checkpoint, Evaluation, Event, File, Job, Json, Level, ModelKind, Phase, Purpose, Sample, Status
from api.reason import Fault as WhoseFault
from api.record_read import CompletionFilter
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
    fault: WhoseFault | str
    message: str
    retryable: bool
    hint: Annotated[str | None, Field(description="What to do about it")] = None


class LeasedView(View):
    id: str
    status: Status | str
    phase: Phase | str | None
    status_reason: ReasonView | None
    attempt: Annotated[int, Field(description="How often a worker started it")]
    priority: Annotated[int, Field(description="A step is worth an hour of waiting: docs/api.md")]
    not_before: Annotated[datetime | None, Field(description="Queued after a crash, it waits until then")]
    cancel_requested: bool
    pause_requested: Annotated[bool, Field(description="It runs and is to be paused")]
    worker: Annotated[str | None, Field(validation_alias="lease_owner", description="Who runs it now")]
    host: Annotated[str | None, Field(validation_alias="lease_host", description="The machine on which it runs now")]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


_FOR_WORKERS = ("resolved_spec", "evaluation_spec")  # the larger part of a job's row; who reads a job does not load it


class ChangeView(View):
    """A place where a job's spec differs from its parent's; null stands for a key that is not there."""

    path: str
    before: Annotated[Any, Field(alias="from")]
    after: Annotated[Any, Field(alias="to")]


class JobView(LeasedView):
    object: Literal["job"] = "job"
    name: str | None
    devices: Annotated[
        list[int] | None, Field(validation_alias="lease_devices", description="GPUs of the host that it has to itself now")
    ]
    step: Annotated[int, Field(description="The last step recorded")]
    steps: int
    folder: Annotated[str, Field(description="The run folder, on the machine that runs the service")]
    spec: Annotated[dict[str, Any], Field(description="The job spec with its defaults filled in")]
    parent_id: Annotated[str | None, Field(description="The job that this one was retried or cloned from")]
    diff: Annotated[list[ChangeView] | None, Field(description="What differs from the parent's spec")]

    @classmethod
    def of(cls, job: Job, **more: int) -> Self:
        told = {column.name: getattr(job, column.name) for column in Job.__table__.columns if column.name not in _FOR_WORKERS}
        return cls.model_validate({**told, "folder": str(settings().run_folder(job.id)), **more})


class ListedJobView(JobView):
    """A job in the list of jobs."""

    warnings: Annotated[int, Field(description="How many `GET /v1/jobs/{id}/warnings` has")]


class StatusView(View):
    """What changes of a job while it runs."""

    object: Literal["job.status"] = "job.status"
    id: str
    status: Status | str
    phase: Phase | str | None
    status_reason: ReasonView | None
    attempt: int
    cancel_requested: bool
    step: int
    steps: int
    started_at: datetime | None
    finished_at: datetime | None


class EvaluationView(LeasedView):
    object: Literal["evaluation"] = "evaluation"
    job_id: str
    model_kind: ModelKind | str
    step: Annotated[int, Field(description="Of the checkpoint; 0 for the base model")]
    spec: dict[str, Any]
    result: Annotated[dict[str, Any] | None, Field(description="Scores by benchmark, once it has succeeded")]

    @classmethod
    def of(cls, evaluation: Evaluation) -> Self:
        return cls.model_validate(evaluation)


class EvaluationRowView(View):
    """One problem of a benchmark with what a model answered."""

    object: Literal["evaluation.row"] = "evaluation.row"
    problem_id: str
    problem: Annotated[str, Field(description="The prompt, before a chat template")]
    answer: str
    completions: Annotated[list[dict[str, Any]], Field(description="text, tokens, finish_reason, score, error, given")]


class EventView(View):
    object: Literal["event"] = "event"
    id: int
    attempt: Annotated[int, Field(description="0 for what belongs to no attempt")]
    step: int | None
    level: Level | str
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
    bytes: Annotated[int | None, Field(description="Of its files together; null until they have been hashed")]
    sha256: Annotated[
        str | None, Field(description="Of what `find . -type f | LC_ALL=C sort | xargs sha256sum` prints in the folder")
    ]
    validation_reward: Annotated[float | None, Field(description="On the held-out rows of the dataset, where there are some")]
    best: Annotated[bool, Field(description="It has the highest validation reward, and stays whatever `keep` says")]
    scores: Annotated[dict[str, Any] | None, Field(description="By benchmark, once it has been evaluated")]
    created_at: datetime

    @classmethod
    def of(cls, checkpoint: Checkpoint, best: int | None = None) -> Self:
        """`best`: the step of the job's best checkpoint."""
        contents = checkpoint.contents
        return cls(
            step=checkpoint.step,
            attempt=checkpoint.attempt,
            final=checkpoint.final,
            path=str(folder_of(checkpoint)),
            available=is_available(checkpoint),
            bytes=None if contents is None else sum(file["bytes"] for file in contents),
            sha256=None if contents is None else digest(contents),
            validation_reward=checkpoint.validation_reward,
            best=checkpoint.step == best,
            scores=checkpoint.scores,
            created_at=checkpoint.created_at,
        )


class CheckpointFile(View):
    path: str
    bytes: int
    sha256: str


class WholeCheckpointView(CheckpointView):
    """One checkpoint with its files."""

    files: Annotated[list[CheckpointFile] | None, Field(description="null until they have been hashed")] = None


class LogLine(View):
    offset: Annotated[int, Field(description="Byte of the file at which the line begins")]
    text: str


class LogView(View):
    object: Literal["log"] = "log"
    component: str
    components: Annotated[list[str], Field(description="What has a log: the trainer, and each evaluation by its id")]
    lines: list[LogLine]
    before: Annotated[int | None, Field(description="Give it back as `before` for older lines; null where there are none")]


class FitView(View):
    """An estimate in bytes: exact for weights, gradients and optimizer, rough for activations."""

    parameters: int | None
    bytes: dict[str, int | None] | None
    bytes_total: int | None
    device: Literal["cpu", "cuda"]
    device_name: str | None
    device_bytes: Annotated[int | None, Field(description="null where the service cannot see the device")]
    fits: bool | None


class PlanView(View):
    object: Literal["plan"] = "plan"
    spec: Annotated[dict[str, Any], Field(description="The job spec with its defaults filled in")]
    steps: int
    completions: Annotated[int, Field(description="Sampled over the whole run")]
    fit: FitView
    waits_for: Annotated[
        str | None, Field(description="A machine or GPUs that are not there or not free now; null where it could start")
    ]
    eta_seconds: Annotated[float | None, Field(description="By the pace of the latest comparable run; null without one")]


class SampleView(View):
    object: Literal["sample"] = "sample"
    step: int
    attempt: int
    problem_id: str
    prompt: str
    answer: str
    completions: list[dict[str, Any]]

    @classmethod
    def of(cls, sample: Sample, wanted: CompletionFilter) -> Self:
        view = cls.model_validate(sample)
        numbered = [{"index": index, **completion} for index, completion in enumerate(view.completions)]
        return view.model_copy(update={"completions": [each for each in numbered if wanted.takes(each)]})


class Series(View):
    """One curve: `value[i]` was measured at `step[i]`; steps ascend. null stands for a value that was not finite."""

    step: list[int]
    value: list[float | None]


class MetricsView(View):
    object: Literal["metrics"] = "metrics"
    names: Annotated[list[str], Field(description="Every metric that these steps have")]
    series: dict[str, Series]


class Buckets(View):
    """One curve in buckets: the i-th of each list is of the i-th bucket, which ends at `step[i]`, its last value's step.

    null stands for what has no finite value; a column that was not asked for is left out.
    """

    step: list[int]
    x: Annotated[list[float | None] | None, Field(description="Where `step` lies on the axis that was asked for")] = None
    last: list[float | None] | None = None
    min: list[float | None] | None = None
    max: list[float | None] | None = None
    mean: list[float | None] | None = None
    n: Annotated[list[int] | None, Field(description="How many finite values are in the bucket")] = None
    not_finite: list[int] | None = None


class BucketsView(View):
    object: Literal["metrics"] = "metrics"
    names: Annotated[list[str], Field(description="Every metric that these steps have")]
    x: Literal["step", "time", "tokens"]
    bucket_steps: Annotated[int, Field(description="How many steps go into a bucket")]
    next_step: Annotated[int, Field(description="The first step behind the last bucket")]
    series: dict[str, Buckets]


class FileView(View):
    """A file in OpenAI's form, with what we know of it besides."""

    object: Literal["file"] = "file"
    id: str
    filename: str
    purpose: Purpose | str
    status: Literal["processed"] = "processed"
    format: Literal["jsonl", "parquet"]
    bytes: int
    sha256: str
    rows: int
    columns: list[str]
    created_at: Annotated[int, Field(description="Seconds since 1970, as OpenAI's clients want it")]
    expires_at: None = None
    status_details: None = None

    @classmethod
    def of(cls, file: File) -> Self:
        columns = {column.name: getattr(file, column.name) for column in File.__table__.columns}
        return cls.model_validate({**columns, "created_at": int(file.created_at.timestamp())})


class FileListing(Listing[FileView]):
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, files: list[FileView], *, has_more: bool) -> Self:
        first, last = (files[0].id, files[-1].id) if files else (None, None)
        return cls(data=files, has_more=has_more, first_id=first, last_id=last)


class DeletedFile(View):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BenchmarkView(View):
    """A named benchmark: where its rows are and how they are asked, sampled and graded."""

    object: Literal["benchmark"] = "benchmark"
    name: str
    path: str
    revision: str | None
    subset: str | None
    split: str
    licence: str | None
    prompt_template: str
    grader: Json
    sampling: Annotated[Json, Field(description="Where a job does not say otherwise")]
    content_hash: Annotated[str | None, Field(description="SHA-256 of its rows, where they are pinned by it")]
    registered: Annotated[bool, Field(description="Added by a user of this service")]

    @classmethod
    def of(cls, benchmark: Benchmark, *, registered: bool = False) -> Self:
        return cls.model_validate({**benchmark.model_dump(), "registered": registered})


class ComparisonJobView(View):
    job_id: str
    label: Annotated[str, Field(description="Of its algorithm, as the report shows it")]
    seed: int
    status: Status | str
    step: int
    steps: int


class ComparisonView(View):
    """Jobs that differ in their algorithm and seed alone."""

    object: Literal["comparison"] = "comparison"
    id: str
    name: str | None
    jobs: list[ComparisonJobView]
    spec: dict[str, Any]
    created_at: datetime


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
