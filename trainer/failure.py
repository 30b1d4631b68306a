"""RUN/failures/step_N.jsonl: the sequences of an optimizer step that was not taken because something in it is not finite.

One line a sequence; a value that is not finite is written as the text "nan", "inf" or "-inf".
"""

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from trainer.batch import TrainSequence
from trainer.run_folder import write_atomically

FOLDER = "failures"


def write_failure(
    run_folder: Path,
    step: int,
    part: int,
    sequences: Sequence[TrainSequence],
    logprobs: Sequence[Sequence[float]],
    old_logprobs: Sequence[Sequence[float]],
) -> str:
    """Writes one part of a step's batch beside the parts already there; returns the file's path within the run folder.

    `part`: which of the step's updates, from 1; `logprobs` and `old_logprobs`: the learner's, of the completions' tokens.
    """
    path = run_folder / FOLDER / f"step_{step}.jsonl"
    path.parent.mkdir(exist_ok=True)
    before = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    kept = [line for line in before if json.loads(line)["update"] != part]  # a step that is run again replaces its own
    own = [
        json.dumps({"step": step, "update": part} | _sequence(*one), allow_nan=False)
        for one in zip(sequences, logprobs, old_logprobs, strict=True)
    ]
    write_atomically(path, "\n".join([*kept, *own]) + "\n")
    return str(path.relative_to(run_folder))


def _sequence(sequence: TrainSequence, logprobs: Sequence[float], old_logprobs: Sequence[float]) -> dict[str, object]:
    return {
        "prompt_token_ids": sequence.prompt_token_ids,
        "completion_token_ids": sequence.completion_token_ids,
        "advantage": _number(sequence.advantage),
        "logprobs": _numbers(logprobs),
        "old_logprobs": _numbers(old_logprobs),
        "sampler_logprobs": _numbers(sequence.sampler_logprobs),
    }


def _numbers(values: Iterable[float]) -> list[float | str]:
    return [_number(value) for value in values]


def _number(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
