"""Log files of a job, read from their end: the newest lines first asked for, those that hold a text where one is asked for."""

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.orm import Session

from api.models import Evaluation
from api.record_read import find_job
from api.schemas import LogLine, LogView
from api.settings import settings
from trainer.strict import SpecError

TRAINER = "trainer"
_BLOCK = 1 << 16
_SEARCHED = 1 << 28  # bytes that one request looks through


def read(session: Session, job_id: str, component: str, tail: int, search: str | None, before: int | None) -> LogView:
    """The last `tail` lines that hold `search` (without case) and begin before byte `before`, oldest first.

    Components: trainer, and each evaluation by its id. Raises SpecError for another.
    """
    files = _files(session, find_job(session, job_id).id)
    if component not in files:
        raise SpecError("component", f"no component {component!r}; this job has {', '.join(files)}")
    lines, following = _last(files[component], tail, search, before)
    return LogView(component=component, components=list(files), lines=lines, before=following)


def _files(session: Session, job_id: str) -> dict[str, Path]:
    evaluations = session.scalars(select(Evaluation.id).where(Evaluation.job_id == job_id).order_by(Evaluation.step))
    return {
        TRAINER: settings().run_folder(job_id) / "trainer.log",
        **{key: settings().evaluation_folder(key) / "evaluator.log" for key in evaluations},
    }


def _last(file: Path, count: int, search: str | None, before: int | None) -> tuple[list[LogLine], int | None]:
    """(lines, oldest first; where to go on with older ones, None where there are none)."""
    wanted = "" if search is None else search.casefold()
    found: list[LogLine] = []
    start = end = _size(file) if before is None else min(before, _size(file))
    for start, raw in _backwards(file, end):
        text = raw.decode("utf-8", "replace")
        if wanted in text.casefold():
            found.append(LogLine(offset=start, text=text))
        if len(found) == count or end - start > _SEARCHED:
            break
    return found[::-1], start or None


def _backwards(file: Path, end: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line without its newline) of the lines that begin before `end`, the last first."""
    if end == 0:
        return
    with file.open("rb") as log:
        later = b""  # the part of a line that lies in blocks read before
        newest = True
        while end > 0:
            start = max(0, end - _BLOCK)
            log.seek(start)
            pieces = (log.read(end - start) + later).split(b"\n")
            if newest and pieces[-1] == b"":
                pieces.pop()
            newest = False
            first = start
            offsets = [first := first + length for length in (0, *(len(piece) + 1 for piece in pieces[:-1]))]
            later, kept = (b"", 0) if start == 0 else (pieces[0], 1)
            yield from islice(zip(reversed(offsets), reversed(pieces), strict=True), len(pieces) - kept)
            end = start


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
