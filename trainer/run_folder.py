"""The run folder: what the trainer writes and the worker reads (docs/architecture.md). Torch-free."""

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from trainer.types import Completion, RolloutGroup

Level = Literal["info", "warn", "error"]
TraceOf = Callable[[RolloutGroup, Completion], dict[str, Any] | None]  # of a completion's tokens; None where none is kept


class RunFolder:
    """Append-only metrics and events, samples a step, and the result. One writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self.used = (path / "metrics.jsonl").exists()  # by an earlier start of this run
        self._metrics = open_lines(path / "metrics.jsonl")
        self._events = open_lines(path / "events.jsonl")

    @property
    def checkpoints(self) -> Path:
        """Where the checkpoints are."""
        return self.path / "checkpoints"

    def metrics_until(self, step: int) -> list[dict[str, float]]:
        """The metrics of each step up to `step`; of two lines of one step the later counts."""
        found = {line["step"]: line["metrics"] for line in read_lines(self.path / "metrics.jsonl")}
        return [found[known] for known in sorted(found) if known <= step]

    def write_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """One line for a finished step. A value that is not finite is an error of ours: JSON has no word for it."""
        if bad := [name for name, value in metrics.items() if not math.isfinite(value)]:
            raise ValueError(f"metrics of step {step} are not finite: {bad}")
        append_line(self._metrics, {"step": step, "time": time.time(), "metrics": dict(metrics)})

    def write_event(
        self, step: int, kind: str, message: str, *, level: Level = "info", data: Mapping[str, Any] | None = None
    ) -> None:
        """One line for something that happened."""
        line = {"time": time.time(), "step": step, "level": level, "type": kind, "message": message, "data": dict(data or {})}
        append_line(self._events, line)

    def write_phase(self, step: int, phase: str) -> None:
        """The run enters a phase."""
        self.write_event(step, "phase", phase.replace("_", " "), data={"phase": phase})

    def write_samples(self, step: int, groups: Sequence[RolloutGroup], trace_of: TraceOf) -> None:
        """The step's rollouts, one line a prompt; a step that is run again replaces them."""
        folder = self.path / "samples"
        folder.mkdir(exist_ok=True)
        lines = [json.dumps(sample_line(step, group, trace_of), ensure_ascii=False) for group in groups]
        write_atomically(folder / f"step_{step}.jsonl", "\n".join(lines) + "\n")

    def sync(self) -> None:
        """Metrics and events are on disk when this returns."""
        for file in (self._metrics, self._events):
            os.fsync(file.fileno())

    def close(self) -> None:
        """No more is written."""
        self._metrics.close()
        self._events.close()


def sample_line(step: int, group: RolloutGroup, trace_of: TraceOf) -> dict[str, Any]:
    """One prompt with its completions, as the samples file holds it."""
    return {
        "step": step,
        "problem_id": group.problem.id,
        "prompt": group.problem.prompt,
        "answer": group.problem.answer,
        "completions": [
            {
                "text": completion.text,
                "tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
                "reward": score.reward,
                "by_grader": score.by_grader,
                "errors": score.errors,
                "advantage": advantage,
            }
            | ({} if (trace := trace_of(group, completion)) is None else {"token_trace": trace})
            for completion, score, advantage in zip(group.completions, group.scores, group.advantages, strict=True)
        ],
    }


def write_result(folder: Path, **result: Any) -> None:
    """result.json: how the run ended."""
    write_atomically(folder / "result.json", json.dumps(result, ensure_ascii=False, indent=1) + "\n")


def open_lines(path: Path) -> TextIO:
    """An append-only file of lines; a line torn by a kill is ended first, so that it cannot swallow the next one."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    file = path.open("a", encoding="utf-8")
    if torn:
        file.write("\n")
        file.flush()
    return file


def append_line(file: TextIO, line: Mapping[str, Any]) -> None:
    """One JSON line, flushed, in a single write."""
    file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")
    file.flush()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The complete lines of a file; torn ones are skipped."""
    lines = []
    for text in path.read_text(encoding="utf-8").split("\n")[:-1]:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return lines


def write_atomically(path: Path, text: str) -> None:
    """The file is there whole or as it was."""
    unfinished = path.with_name(path.name + ".unfinished")
    with unfinished.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
