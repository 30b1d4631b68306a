"""Moves what a trainer writes into its run folder into the record, each line once."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator, ValidationError
from sqlalchemy.orm import Session

from api.database import transaction
from api.ingest import (
    Span,
    TailMovedError,
    store_checkpoint,
    store_events,
    store_metrics,
    store_resumed,
    store_samples,
    tail_offset,
)
from api.models import Level, Phase
from api.record import Claim, set_phase
from api.storable import storable
from api.telling import add_event
from worker.lines import AnyLine, Chunk, EventLine, Finite, Line, MetricsLine, SampleLine, Step, read_chunk, read_lines

METRICS = "metrics.jsonl"
EVENTS = "events.jsonl"
MAX_SAMPLE_BYTES = 1 << 26  # of a step; the file has them all
SAMPLE_BYTES_AT_ONCE = 1 << 24  # in one transaction, but for a step that has more: it must end in time (api/database.py)

Samples = Sequence[tuple[int, str, Chunk[SampleLine]]]  # step, file, what is in it


def _inside(path: str) -> str:
    if PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts:
        raise ValueError("the path leaves the run folder")
    return path


class CheckpointData(Line):
    """`data` of a checkpoint event: `{"step": 40, "path": "checkpoints/step_40", "final": false}`"""

    step: Step
    path: Annotated[str, AfterValidator(_inside)]
    final: bool
    validation_reward: Finite | None = None


class RunTail:
    """Reads the growing files of one run folder from where the record ends.

    `feed` may raise SQLAlchemy's errors of an outage: nothing is lost then, the next call goes on from what was recorded.
    It raises LeaseLostError where the claim is stale.
    """

    def __init__(self, claim: Claim, folder: Path) -> None:
        self._claim = claim
        self._folder = folder
        self._offsets: dict[str, int] = {}  # of the files whose place in the record is known

    def feed(self) -> bool:
        """Record the next chunk of each file; False if there was nothing new."""
        # Metrics first: behind a checkpoint event lie all metrics up to its step.
        metrics = self._feed(METRICS, MetricsLine)
        events = self._feed(EVENTS, EventLine)
        return metrics or events

    def _feed(self, file: str, kind: type[AnyLine]) -> bool:
        start = self._offset(file)
        chunk = read_chunk(self._folder / file, start, kind)
        while len(chunk.lines) > 1 and self._sample_bytes(chunk) > SAMPLE_BYTES_AT_ONCE:
            chunk = read_chunk(self._folder / file, start, kind, (chunk.offset - start) // 2)
        if chunk.offset == start:
            return False
        samples = [
            (step, name, read_lines(self._folder / name, SampleLine, MAX_SAMPLE_BYTES))
            for name, step in self._sample_files(chunk).items()
        ]
        del self._offsets[file]  # unknown until the commit is
        try:
            with transaction() as session:
                self._store(session, chunk, samples, Span(file, start, chunk.offset))
        except TailMovedError:  # a commit whose answer was lost in an outage
            return True
        self._offsets[file] = chunk.offset
        return True

    def _offset(self, file: str) -> int:
        if file not in self._offsets:
            with transaction() as session:
                self._offsets[file] = tail_offset(session, self._claim.job_id, file)
        return self._offsets[file]

    def _sample_files(self, chunk: Chunk[AnyLine]) -> dict[str, int]:
        """Those of the steps of metrics that are there, in order: their names, and of which step each is."""
        steps = sorted({line.step for line in chunk.lines if isinstance(line, MetricsLine)})
        names = {f"samples/step_{step}.jsonl": step for step in steps}
        return {name: step for name, step in names.items() if (self._folder / name).exists()}

    def _sample_bytes(self, chunk: Chunk[AnyLine]) -> int:
        return sum((self._folder / name).stat().st_size for name in self._sample_files(chunk))

    def _store(self, session: Session, chunk: Chunk[AnyLine], samples: Samples, span: Span) -> None:
        metrics = [line for line in chunk.lines if isinstance(line, MetricsLine)]
        events = [line for line in chunk.lines if isinstance(line, EventLine)]
        if span.file == METRICS:
            store_metrics(session, self._claim, [line.model_dump() for line in metrics], span)
            for step, name, read in samples:
                store_samples(session, self._claim, step, [line.model_dump() for line in read.lines])
                self._report(session, name, read.malformed)
        else:
            store_events(session, self._claim, [event.model_dump() for event in events], span)
            self._follow(session, events)
        self._report(session, span.file, chunk.malformed)

    def _follow(self, session: Session, events: Sequence[EventLine]) -> None:
        """Do what events stand for: checkpoints become rows, a resumed job is back at its step, the last phase is the job's."""
        for event in events:
            if event.type == "checkpoint":
                self._store_checkpoint(session, event)
            elif event.type == "resumed":
                store_resumed(session, self._claim, event.step or 0, event.time)
                if event.step:  # a kill between a checkpoint and its event left it unrecorded
                    self._store_checkpoint_of_resumed(session, event.step)
        phases = [event.data.get("phase") for event in events if event.type == "phase"]
        if known := [phase for phase in phases if phase in list(Phase)]:  # the trainer has finer ones
            set_phase(session, self._claim, Phase(known[-1]))

    def _store_checkpoint(self, session: Session, event: EventLine) -> None:
        try:
            data = CheckpointData.model_validate(event.data)
        except ValidationError as error:
            self._report(session, EVENTS, (f"checkpoint of step {event.step}: {error.errors()[0]['msg']}",))
            return
        store_checkpoint(session, self._claim, data.step, data.path, final=data.final, validation_reward=data.validation_reward)

    def _store_checkpoint_of_resumed(self, session: Session, step: int) -> None:
        final = step == self._claim.spec["steps"]
        store_checkpoint(session, self._claim, step, f"checkpoints/step_{step}", final=final)

    def _report(self, session: Session, file: str, malformed: Sequence[str]) -> None:
        if malformed:
            message = f"{file}: {len(malformed)} unreadable line(s) passed over; the first: {malformed[0]}"
            data = {"file": file, "count": len(malformed)}
            add_event(session, self._claim.job_id, self._claim.attempt, "warning", storable(message), data, Level.WARN)
