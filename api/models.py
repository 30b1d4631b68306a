"""The tables of the record. Migrations (`migrations/`) produce exactly these; a test compares them."""

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import (
    DDL,
    BigInteger,
    CheckConstraint,
    Dialect,
    Double,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Text,
    event,
    false,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Json = dict[str, Any]


class Status(StrEnum):
    """The public state of a job or evaluation. An evaluation is never validating or paused."""

    VALIDATING_FILES = "validating_files"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


TERMINAL = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


class Phase(StrEnum):
    """What a job is doing within its status."""

    PROVISIONING = "provisioning"
    LOADING_MODEL = "loading_model"
    ROLLOUT = "rollout"
    LEARNING = "learning"
    EVALUATING = "evaluating"
    CHECKPOINTING = "checkpointing"
    PAUSING = "pausing"
    CANCELLING = "cancelling"
    RECOVERING = "recovering"
    FINALIZING = "finalizing"


class Level(StrEnum):
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class Purpose(StrEnum):
    """What a file was uploaded for, in OpenAI's words; derived: made of another by the service."""

    FINE_TUNE = "fine-tune"
    EVALS = "evals"
    USER_DATA = "user_data"
    BATCH = "batch"
    ASSISTANTS = "assistants"
    VISION = "vision"
    DERIVED = "derived"


class ModelKind(StrEnum):
    """What an evaluation scores: the model before training, or a checkpoint of the run."""

    BASE = "base"
    CHECKPOINT = "checkpoint"


class Task(StrEnum):
    """The Celery task that an outbox row asks for."""

    RUN_JOB = "worker.tasks.run_job"
    RUN_EVALUATION = "worker.tasks.run_evaluation"


_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def new_id(prefix: str) -> str:
    """An id that nobody can guess: `job-`, `eval-` or `file-` and 24 base32 characters (120 random bits)."""
    return f"{prefix}-" + "".join(secrets.choice(_BASE32) for _ in range(24))


def is_id(prefix: str, text: str) -> bool:
    """Whether `text` could be an id of ours; what cannot be is not looked up."""
    return re.fullmatch(f"{prefix}-[{_BASE32}]{{24}}", text) is not None


class _Words(Enum):
    """A word that this version does not know is read as plain text: a newer worker of the same service may have written it."""

    cache_ok = True

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], Any]:
        known = super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]

        def read(value: Any) -> Any:
            try:
                return known(value)
            except LookupError:
                return value

        return read


def _states(states: type[StrEnum], name: str) -> Enum:
    """Text with a CHECK of its values: a native PostgreSQL enum cannot lose a value again."""
    return _Words(
        states,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=32,
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        str: Text(),
        int: BigInteger(),
        datetime: TIMESTAMP(timezone=True),
        Json: JSONB(none_as_null=True),
        list[Json]: JSONB(none_as_null=True),
    }


class Leased:
    """The columns of a row that a worker claims, holds by a lease and ends. Only `api/record.py` writes them."""

    status: Mapped[Status] = mapped_column(_states(Status, "status"))
    phase: Mapped[Phase | None] = mapped_column(_states(Phase, "phase"))
    status_reason: Mapped[Json | None]  # {code, fault, message, retryable, hint}
    attempt: Mapped[int] = mapped_column(server_default="0")  # how often it was claimed
    crashes: Mapped[int] = mapped_column(server_default="0")  # attempts that ended without being asked to
    priority: Mapped[int] = mapped_column(server_default="0")  # an evaluation has its job's
    turn_at: Mapped[datetime] = mapped_column(server_default=func.now())  # created_at, made earlier by the priority
    not_before: Mapped[datetime | None]  # queued after a crash, it waits until then
    cancel_requested: Mapped[bool] = mapped_column(server_default=false())
    pause_requested: Mapped[bool] = mapped_column(server_default=false())  # of a running job; a paused one has its status
    lease_owner: Mapped[str | None]
    lease_token: Mapped[UUID | None]  # fences off every write of an earlier holder
    lease_expires_at: Mapped[datetime | None]
    lease_host: Mapped[str | None]
    lease_devices: Mapped[list[int] | None] = mapped_column(JSONB(none_as_null=True))  # indices of the host's GPUs, see GpuSlot
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())
    queued_at: Mapped[datetime] = mapped_column(server_default=func.now())  # the last time it became queued
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


DEFAULT_PROJECT = "default"


class Owned:
    """A row of one project: a session that serves a caller sees and makes rows of its project only (`api/scoping.py`)."""

    project: Mapped[str] = mapped_column(server_default=DEFAULT_PROJECT)


class Job(Owned, Leased, Base):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    spec: Mapped[Json]  # what the user asked for, defaults filled in
    resolved_spec: Mapped[Json]  # the same with uploaded files and relative paths as absolute paths: what runs
    evaluation_spec: Mapped[Json | None]  # scores the base model; a checkpoint's differs in its model
    step: Mapped[int] = mapped_column(server_default="0")  # the last step recorded
    steps: Mapped[int]
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="SET NULL"))  # retried or cloned
    diff: Mapped[list[Json] | None]  # between the parent's spec and this: {path, from, to}
    device: Mapped[str] = mapped_column(server_default="auto")  # of the spec's resources, as is the next
    gpus: Mapped[int] = mapped_column(server_default="1")  # to be leased, unless it runs on the CPU

    __table_args__ = (
        Index("ix_jobs_project_created_at_id", "project", text("created_at DESC"), text("id DESC")),
        Index("ix_jobs_status_created_at_id", "status", text("created_at DESC"), text("id DESC")),
        Index("ix_jobs_queue", "turn_at", "id", postgresql_where=text("status = 'queued'")),
        Index("ix_jobs_parent_id", "parent_id"),
        Index("ix_jobs_lease_expires_at", "lease_expires_at", postgresql_where=text("status = 'running'")),
    )


class Evaluation(Leased, Base):
    __tablename__ = "evaluations"

    id: Mapped[str] = mapped_column(primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    model_kind: Mapped[ModelKind] = mapped_column(_states(ModelKind, "model_kind"))
    step: Mapped[int]  # of the checkpoint; 0 for the base model
    spec: Mapped[Json]  # evaluator.config.EvaluationSpec
    result: Mapped[Json | None]  # `result.json` of the evaluation's folder

    __table_args__ = (
        CheckConstraint("status NOT IN ('validating_files', 'paused')", name="evaluation_status"),
        Index("uq_evaluations_job_id_step_model_kind", "job_id", "step", "model_kind", unique=True),
        Index("ix_evaluations_status_created_at", "status", "created_at"),
        Index("ix_evaluations_queue", "turn_at", "id", postgresql_where=text("status = 'queued'")),
    )


class Event(Base):
    __tablename__ = "events"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    attempt: Mapped[int]
    step: Mapped[int | None]
    level: Mapped[Level] = mapped_column(_states(Level, "level"))
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[Json] = mapped_column(server_default=text("'{}'::jsonb"))
    reported_at: Mapped[datetime | None]  # the run's own clock, where the run wrote the event
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("ix_events_job_id_id", "job_id", "id"),
        Index("ix_events_warnings", "job_id", "type", "id", postgresql_where=text("level = 'warn'")),
    )


class StepMetrics(Base):
    """Metrics of a step, kept for each attempt; the latest attempt of a step counts."""

    __tablename__ = "step_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    metrics: Mapped[Json]  # name -> number
    reported_at: Mapped[datetime]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seq: Mapped[int] = mapped_column(Identity(always=True))  # rises in the order in which a job's rows are committed

    __table_args__ = (
        Index("ix_step_metrics_job_id_step_attempt", "job_id", "step", text("attempt DESC")),
        Index("ix_step_metrics_job_id_seq", "job_id", "seq"),
        # Compressed documents would be unpacked again for each name that is read out of them.
        {"postgresql_with": {"toast_tuple_target": 8160}},
    )


class MetricSegment(Base):
    """A metric over `size` steps from `start` on, all of them recorded: what a long curve is drawn from (`api/rollup.py`)."""

    __tablename__ = "metric_segments"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    size: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(primary_key=True)
    start: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    n: Mapped[int] = mapped_column(Integer)  # values that are numbers
    not_finite: Mapped[int] = mapped_column(Integer)
    min: Mapped[float | None] = mapped_column(Double)
    max: Mapped[float | None] = mapped_column(Double)
    sum: Mapped[float | None] = mapped_column(Double)
    last: Mapped[float | None] = mapped_column(Double)
    last_step: Mapped[int]


class Sample(Base):
    """One prompt of a step with its completions, rewards and advantages."""

    __tablename__ = "samples"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)  # line in the step's file, from 0
    problem_id: Mapped[str]
    prompt: Mapped[str]
    answer: Mapped[str]
    completions: Mapped[list[Json]]


class Checkpoint(Base):
    __tablename__ = "checkpoints"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    attempt: Mapped[int]
    path: Mapped[str]  # relative to the run folder
    final: Mapped[bool]
    contents: Mapped[list[Json] | None]  # its files, {path, bytes, sha256}, once they have been hashed
    validation_reward: Mapped[float | None]  # on the job's held-out rows
    scores: Mapped[Json | None]  # by benchmark, once its evaluation has succeeded
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class File(Owned, Base):
    """An uploaded data set."""

    __tablename__ = "files"

    id: Mapped[str] = mapped_column(primary_key=True)
    filename: Mapped[str]
    purpose: Mapped[Purpose] = mapped_column(_states(Purpose, "purpose"), server_default="fine-tune")
    format: Mapped[str]  # jsonl or parquet
    bytes: Mapped[int]
    sha256: Mapped[str]
    rows: Mapped[int]
    columns: Mapped[list[str]] = mapped_column(JSONB)  # names, in their order in the file
    path: Mapped[str]  # relative to the data folder
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        CheckConstraint("format IN ('jsonl', 'parquet')", name="format"),
        Index("ix_files_project_created_at_id", "project", text("created_at DESC"), text("id DESC")),
    )


class RegisteredBenchmark(Owned, Base):
    """A benchmark of a user's own rows."""

    __tablename__ = "benchmarks"

    project: Mapped[str] = mapped_column(primary_key=True, server_default=DEFAULT_PROJECT)
    name: Mapped[str] = mapped_column(primary_key=True)
    entry: Mapped[Json]  # evaluator.config.Benchmark
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Comparison(Owned, Base):
    """Jobs that differ in their algorithm and seed alone."""

    __tablename__ = "comparisons"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str | None]
    spec: Mapped[Json]  # api.comparisons.ComparisonSpec
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_comparisons_project_created_at_id", "project", text("created_at DESC"), text("id DESC")),)


class ComparisonJob(Base):
    __tablename__ = "comparison_jobs"

    comparison_id: Mapped[str] = mapped_column(ForeignKey("comparisons.id", ondelete="CASCADE"), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int]  # of its algorithm in the report
    label: Mapped[str]  # the algorithm's, as the report shows it
    seed: Mapped[int]


class Worker(Base):
    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(primary_key=True)
    host: Mapped[str]
    pid: Mapped[int]
    queue: Mapped[str]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    seen_at: Mapped[datetime] = mapped_column(server_default=func.now())


class GpuSlot(Base):
    """A GPU of a host: free, or held by the token of a job's lease, with which it falls free (a trigger)."""

    __tablename__ = "gpu_slots"

    host: Mapped[str] = mapped_column(primary_key=True)
    index: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    lease_token: Mapped[UUID | None]
    leased_at: Mapped[datetime | None]

    __table_args__ = (Index("ix_gpu_slots_lease_token", "lease_token"),)


class Outbox(Base):
    """A hint to be published: written with the change that needs it, deleted when the broker has it."""

    __tablename__ = "outbox"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    task: Mapped[Task] = mapped_column(_states(Task, "task"))
    key: Mapped[str]  # the id of the job or evaluation
    not_before: Mapped[datetime | None]  # as that of the job or evaluation
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class Creation(Owned, Base):
    """A request that made a job, for as long as the same request may be sent again (`api/idempotency.py`)."""

    __tablename__ = "creations"

    id: Mapped[int] = mapped_column(Identity(always=True), primary_key=True)
    key: Mapped[str | None]
    fingerprint: Mapped[str]  # SHA-256 of route and body
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (
        Index("uq_creations_project_key", "project", "key", unique=True),
        Index("ix_creations_fingerprint", "fingerprint"),
        Index("ix_creations_created_at", "created_at"),
    )


class OpenAIJob(Base):
    """What a job was asked for in OpenAI's form."""

    __tablename__ = "openai_jobs"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    request: Mapped[Json]


class Webhook(Owned, Base):
    """A URL that is told of the end of jobs."""

    __tablename__ = "webhooks"

    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    secret: Mapped[str]  # whsec_..., which signs; it cannot be a hash
    events: Mapped[list[str]] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    __table_args__ = (Index("ix_webhooks_project", "project"),)


class Delivery(Base):
    """One message to one webhook, written by a trigger when a job ends."""

    __tablename__ = "webhook_deliveries"

    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    type: Mapped[str]
    payload: Mapped[Json]
    attempts: Mapped[int] = mapped_column(server_default="0")
    last_error: Mapped[str | None]
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    delivered_at: Mapped[datetime | None]
    failed_at: Mapped[datetime | None]

    __table_args__ = (
        Index("ix_webhook_deliveries_webhook_id_created_at", "webhook_id", text("created_at DESC")),
        Index("ix_webhook_deliveries_next_at", "next_at", postgresql_where=text("delivered_at IS NULL AND failed_at IS NULL")),
    )


class Tail(Base):
    """How many bytes of a file of the run folder are in the record."""

    __tablename__ = "tails"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    file: Mapped[str] = mapped_column(primary_key=True)
    bytes: Mapped[int]


class Scope(StrEnum):
    """What a key allows; each scope contains the one before it."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


class ApiKey(Owned, Base):
    """A key's hash; the key itself is shown once, to who makes it. It is usable until it expires or is revoked."""

    __tablename__ = "api_keys"

    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    prefix: Mapped[str]  # the first characters of the key, by which people know it
    sha256: Mapped[str]  # of the key; it has 200 random bits, so nothing slower is needed
    scope: Mapped[Scope] = mapped_column(_states(Scope, "scope"))
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # exact to a minute

    __table_args__ = (
        Index("uq_api_keys_sha256", "sha256", unique=True),
        Index("ix_api_keys_project_created_at_id", "project", text("created_at DESC"), text("id DESC")),
    )


# What has ended stays as it ended, whoever writes to the database.
_KEEP_TERMINAL_STATUS = """
    CREATE OR REPLACE FUNCTION keep_terminal_status() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        RAISE EXCEPTION '% % is %, which never changes', TG_TABLE_NAME, OLD.id, OLD.status USING ERRCODE = 'check_violation';
    END $$
"""
_ON_CHANGE = """
    CREATE TRIGGER keep_terminal_status BEFORE UPDATE OF status ON %(table)s FOR EACH ROW
    WHEN (OLD.status IN ('succeeded', 'failed', 'cancelled') AND NEW.status <> OLD.status)
    EXECUTE FUNCTION keep_terminal_status()
"""
for _table in (Job.__table__, Evaluation.__table__):
    for _statement in (_KEEP_TERMINAL_STATUS.replace("%", "%%"), _ON_CHANGE):
        event.listen(_table, "after_create", DDL(_statement))  # type: ignore[no-untyped-call]
