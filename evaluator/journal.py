"""The graded samples of an evaluation as they come, so that one that is killed goes on where it was.

The first line says what is scored; a journal of anything else is begun anew. Each batch is one write: a kill leaves it whole,
absent or torn at its end, and a torn line counts as never written.
"""

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from trainer.run_folder import read_lines

JOURNAL = "samples.jsonl"
Place = tuple[str, int, int]  # benchmark, place of the problem in it, sample


@dataclass(frozen=True, slots=True)
class Graded:
    """One completion with its verdict.

    >>> Graded("sums", 3, 0, text="\\\\boxed{5}", tokens=4, finish_reason="stop", score=1.0, error=None, answer="5")
    """

    benchmark: str
    problem: int  # place among the benchmark's problems
    sample: int
    text: str
    tokens: int
    finish_reason: str
    score: float  # 0 where the grader failed
    error: str | None  # what the grader failed on
    answer: str | None  # what was graded, in one spelling; None where the text answers nothing

    @property
    def place(self) -> Place:
        return self.benchmark, self.problem, self.sample


class Journal:
    """samples.jsonl of one evaluation. One writer."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        head = {"evaluation": identity}
        lines = read_lines(path) if path.exists() else []
        known = bool(lines) and lines[0] == head
        self.graded: dict[Place, Graded] = {}
        if known:
            self.graded = {one.place: one for one in (Graded(**line) for line in lines[1:])}
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | (os.O_APPEND if known else os.O_TRUNC), 0o644)
        # After a torn line, the newline ends it.
        self._write(b"\n" if known and not path.read_bytes().endswith(b"\n") else b"" if known else _line(head))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self._file)

    def add(self, batch: Iterable[Graded]) -> None:
        """Written when this returns: a kill of the process no longer touches it."""
        batch = list(batch)
        self._write(b"".join(_line(asdict(one)) for one in batch))
        self.graded |= {one.place: one for one in batch}

    def _write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._file, data) :]


def _line(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8", "replace") + b"\n"
