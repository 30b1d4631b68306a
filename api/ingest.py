"""What a run writes into its folder, moved into the record by the worker that holds the job.

Every function works in the caller's transaction and raises LeaseLostError, with nothing written, for a stale claim.
Metrics and events move the file's offset (`tails`) in the transaction that inserts their rows, so each line is recorded
exactly once, whatever dies when.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import PurePosixPath

from sqlalchemy import delete, func, insert, select, text, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from api.models import Checkpoint, Event, Job, Json, ModelKind, Sample, StepMetrics, Tail
from api.record import Claim, hold, schedule_evaluation
from api.rollup import forget, roll_up
from api.settings import settings
from api.storable import storable


class TailMovedError(Exception):
    """The record is not where the reader believes: read `tail_offset` again and go on from there."""


@dataclass(frozen=True, slots=True)
class Span:
    """The bytes of a file that some lines came from, the last newline included: `Span("metrics.jsonl", 0, 120)`."""

    file: str
    start: int
    end: int


def tail_offset(session: Session, job_id: str, file: str) -> int:
    """How many bytes of `file` are in the record."""
    return session.scalar(select(Tail.bytes).where(Tail.job_id == job_id, Tail.file == file)) or 0


def store_metrics(session: Session, claim: Claim, lines: Sequence[Json], span: Span) -> None:
    """Record lines of `metrics.jsonl`: `{"step", "time", "metrics"}`. Of two lines of one step the later counts.

    Raises LeaseLostError, or TailMovedError if `span` does not start where the record ends.
    """
    hold(session, claim)
    _move_tail(session, claim, span)
    rows = {
        line["step"]: {
            "job_id": claim.job_id,
            "attempt": claim.attempt,
            "step": line["step"],
            "metrics": storable(line["metrics"]),
            "reported_at": _instant(line["time"]),
        }
        for line in lines
    }
    if not rows:
        return
    statement = upsert(StepMetrics)
    later = {"metrics": statement.excluded.metrics, "reported_at": statement.excluded.reported_at, "created_at": func.now()}
    again = statement.on_conflict_do_update(
        index_elements=["job_id", "attempt", "step"], set_={**later, "seq": text("DEFAULT")}
    )
    session.execute(again, list(rows.values()))
    before = session.scalars(select(Job.step).where(Job.id == claim.job_id)).one()
    last = lines[-1]["step"]
    session.execute(update(Job).where(Job.id == claim.job_id).values(step=last))
    roll_up(session, claim.job_id, min(rows), last, appended=min(rows) > before)


def store_resumed(session: Session, claim: Claim, step: int, time: float) -> None:
    """Take the job back to `step`, from which it goes on since `time`, or to what has been recorded of it since.

    What an earlier attempt did after `step` stays in the record, out of sight until it is done again.
    """
    hold(session, claim)
    since = select(func.max(StepMetrics.step)).where(
        StepMetrics.job_id == claim.job_id, StepMetrics.attempt == claim.attempt, StepMetrics.reported_at >= _instant(time)
    )
    back = session.scalar(since)
    now_at = step if back is None else back
    session.execute(update(Job).where(Job.id == claim.job_id).values(step=now_at))
    forget(session, claim.job_id, now_at + 1)


def store_events(session: Session, claim: Claim, lines: Sequence[Json], span: Span) -> None:
    """Record lines of `events.jsonl`: `{"time", "step", "level", "type", "message", "data"}`. Raises as `store_metrics`."""
    hold(session, claim)
    _move_tail(session, claim, span)
    rows = [
        {
            "job_id": claim.job_id,
            "attempt": claim.attempt,
            "step": line["step"],
            "level": line["level"],
            "type": storable(line["type"]),
            "message": storable(line["message"]),
            "data": storable(line["data"]),
            "reported_at": _instant(line["time"]),
        }
        for line in lines
    ]
    if rows:
        session.execute(insert(Event), rows)


def store_samples(session: Session, claim: Claim, step: int, lines: Sequence[Json]) -> None:
    """Record a whole `samples/step_N.jsonl`; what this attempt recorded of the step before is replaced."""
    hold(session, claim)
    mine = (Sample.job_id == claim.job_id, Sample.attempt == claim.attempt, Sample.step == step)
    session.execute(delete(Sample).where(*mine))
    rows = [
        {
            "job_id": claim.job_id,
            "attempt": claim.attempt,
            "step": step,
            "position": position,
            **{key: storable(line[key]) for key in ("problem_id", "prompt", "answer", "completions")},
        }
        for position, line in enumerate(lines)
    ]
    if rows:
        session.execute(insert(Sample), rows)


def store_checkpoint(
    session: Session, claim: Claim, step: int, path: str, *, final: bool, validation_reward: float | None = None
) -> str | None:
    """Record a complete checkpoint (`path` relative to the run folder) and queue its evaluation where one is due.

    Returns the id of the evaluation that was queued.
    """
    hold(session, claim)
    told = {"attempt": claim.attempt, "path": path, "final": final, "validation_reward": validation_reward}
    statement = upsert(Checkpoint).values(job_id=claim.job_id, step=step, **told)
    again = {**told, "created_at": func.now(), "contents": None}
    session.execute(statement.on_conflict_do_update(index_elements=["job_id", "step"], set_=again))
    template = session.scalar(select(Job.evaluation_spec).where(Job.id == claim.job_id, ~Job.cancel_requested))
    if template is None or not _is_evaluated(claim.spec, step, final=final):
        return None
    folder = settings().run_folder(claim.job_id) / PurePosixPath(path)
    spec = {**template, "model": {**template["model"], "path": str(folder), "revision": None}, "cache": None}
    return schedule_evaluation(session, claim.job_id, ModelKind.CHECKPOINT, step, spec)


def _is_evaluated(spec: Json, step: int, *, final: bool) -> bool:
    """Whether this checkpoint is one that the spec asks to score; `evaluation.every` counts scheduled checkpoints."""
    every = spec["evaluation"]["every"]
    return final or (every is not None and step % (every * spec["checkpoints"]["every"]) == 0)


def _move_tail(session: Session, claim: Claim, span: Span) -> None:
    row = {"job_id": claim.job_id, "file": span.file, "bytes": span.end}
    statement = upsert(Tail).values(row)
    if span.start == 0:
        statement = statement.on_conflict_do_update(
            index_elements=["job_id", "file"], set_={"bytes": span.end}, where=Tail.bytes == 0
        )
        moved = session.scalar(statement.returning(Tail.bytes))
    else:
        here = (Tail.job_id == claim.job_id, Tail.file == span.file, Tail.bytes == span.start)
        moved = session.scalar(update(Tail).where(*here).values(bytes=span.end).returning(Tail.bytes))
    if moved is None:
        raise TailMovedError(f"{span.file} of {claim.job_id} is not recorded up to byte {span.start}")


def _instant(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
