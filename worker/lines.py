"""Reads what a running child has appended to a JSONL file, from a byte offset on."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

CHUNK_BYTES = 1 << 16  # what one transaction takes in: some dozens of steps with their samples
MAX_LINE_BYTES = 1 << 24  # a longer line is passed over: whatever a trainer writes, it does not take the worker's memory


class Line(BaseModel):
    """A line of a run folder's file; keys that a newer trainer adds are let pass."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)


Step = Annotated[int, Field(ge=0, lt=2**31)]
Seconds = Annotated[float, Field(ge=0, lt=253402300800)]  # since 1970, up to the year 9999
Finite = Annotated[float, Field(allow_inf_nan=False)]
AnyLine = TypeVar("AnyLine", bound=Line)


class MetricsLine(Line):
    """`{"step": 3, "time": 1760000000.1, "metrics": {"reward": 0.4}}`"""

    step: Step
    time: Seconds
    metrics: dict[str, Finite]


class EventLine(Line):
    """`{"time": 1760000000.1, "step": 3, "level": "info", "type": "phase", "message": "...", "data": {"phase": "rollout"}}`"""

    time: Seconds
    step: Step | None = None
    level: Literal["info", "warn", "error"]
    type: Annotated[str, Field(min_length=1)]
    message: str
    data: dict[str, Any] = {}


class SampleLine(Line):
    """One prompt of a step with its completions; what is in a completion is the trainer's and the reader's business."""

    problem_id: str
    prompt: str
    answer: str
    completions: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Chunk(Generic[AnyLine]):
    """Complete lines, what is wrong with those that could not be read, and the byte offset after the last."""

    lines: tuple[AnyLine, ...]
    malformed: tuple[str, ...]
    offset: int


def read_chunk(file: Path, offset: int, kind: type[AnyLine], size: int = CHUNK_BYTES) -> Chunk[AnyLine]:
    """The complete lines of `file` from `offset` on, about `size` bytes of them; a last line without its newline waits.

    Empty lines are passed over, and as malformed what is longer than MAX_LINE_BYTES. A file that is not there has no lines.
    """
    complete = _complete_bytes(file, offset, size)
    if complete is None:
        end = _end_of_line(file, offset)
        told = () if end == offset else (f"a line of {end - offset} bytes, more than the {MAX_LINE_BYTES} that are read",)
        return Chunk((), told, end)
    lines, malformed = parse_lines(complete, kind)
    return Chunk(lines, malformed, offset + len(complete))


def parse_lines(data: bytes, kind: type[AnyLine]) -> tuple[tuple[AnyLine, ...], tuple[str, ...]]:
    """The lines in `data` as `kind`, and what is wrong with those that are none."""
    lines: list[AnyLine] = []
    malformed: list[str] = []
    for raw in data.split(b"\n"):
        if not raw.strip():
            continue
        try:
            lines.append(kind.model_validate(json.loads(raw)))
        except (ValueError, RecursionError) as error:  # json's and pydantic's errors are of the first kind; nested too deeply
            malformed.append(f"{_reason(error)} in {_shown(raw)}")
    return tuple(lines), tuple(malformed)


def last_lines(file: Path, count: int, limit: int = 4096) -> str:
    """The last `count` lines of a log, at most `limit` bytes of it, undecodable bytes replaced; empty where there is none."""
    if not file.exists():
        return ""
    with file.open("rb") as log:
        log.seek(max(0, file.stat().st_size - limit))
        text = log.read().decode("utf-8", errors="replace")
    return "\n".join(text.rstrip().splitlines()[-count:])


def read_lines(file: Path, kind: type[AnyLine], limit: int) -> Chunk[AnyLine]:
    """All complete lines of `file`, as far as they lie in its first `limit` bytes; what lies behind is told as malformed."""
    lines: list[AnyLine] = []
    malformed: list[str] = []
    offset, size = 0, file.stat().st_size
    while offset < limit and (chunk := read_chunk(file, offset, kind)).offset > offset:
        lines += chunk.lines
        malformed += chunk.malformed
        offset = chunk.offset
    if offset >= limit and offset < size:
        malformed.append(f"{size - offset} bytes behind the first {offset}")
    return Chunk(tuple(lines), tuple(malformed), offset)


def _complete_bytes(file: Path, offset: int, size: int) -> bytes | None:
    """Up to a newline; nothing where none has come yet, None where it is not within MAX_LINE_BYTES."""
    if not file.exists():
        return b""
    with file.open("rb") as stream:
        stream.seek(offset)
        data = stream.read(size)
        if data and b"\n" not in data:  # one line longer than a chunk
            data += stream.readline(MAX_LINE_BYTES - len(data) + 1)
    if len(data) > MAX_LINE_BYTES:
        return None
    return data[: data.rfind(b"\n") + 1]


def _end_of_line(file: Path, offset: int) -> int:
    """The offset behind the newline of the line at `offset`, read in pieces; `offset` where the newline is not there yet."""
    with file.open("rb") as stream:
        place = stream.seek(offset)
        while block := stream.read(CHUNK_BYTES):
            if (found := block.find(b"\n")) >= 0:
                return place + found + 1
            place += len(block)
    return offset


def _shown(raw: bytes) -> str:
    text = raw[:200].decode("utf-8", errors="replace")
    return text if len(raw) <= 200 else text + "..."


def _reason(error: ValueError | RecursionError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(map(str, fault["loc"]))
    return f"{place}: {fault['msg']}" if place else fault["msg"]
