"""`python -m evaluator CONFIG`: one model scored on benchmarks, with no service.

CONFIG is an evaluation spec in TOML or JSON; rows/<benchmark>.jsonl and result.json go into its folder, and until it has
succeeded samples.jsonl, from which the next start goes on.
"""

import argparse
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from evaluator.config import EvaluationSpec
from evaluator.journal import JOURNAL
from trainer.config import read_document
from trainer.data import check_model
from trainer.disk import is_full
from trainer.exits import Exit
from trainer.run_folder import write_result
from trainer.stopping import Stopped, StopSignal
from trainer.strict import SpecError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m evaluator", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, help="evaluation spec (TOML or JSON); the scores go into its folder")
    config = parser.parse_args().config
    stop = StopSignal()
    stop.listen()
    sys.exit(run(config, stop))


def run(config: Path, stop: StopSignal) -> Exit:
    """Scores, and says in result.json and by the exit code how it ended."""
    folder = config.parent
    (folder / "result.json").unlink(missing_ok=True)
    try:
        with stop.interruptible():
            benchmarks = score(config, folder, stop)
    except Stopped:
        return end(folder, Exit.STOPPED, "stopped", None, "told to stop")
    except SpecError as error:
        return end(folder, Exit.USER, "failed", "bad_spec", str(error))
    except Exception as error:  # noqa: BLE001  # the border of the process: whatever else went wrong is our fault, and says so
        if stop.requested:  # the engine's end, say, when the whole process group was told to stop
            return end(folder, Exit.STOPPED, "stopped", None, "told to stop")
        traceback.print_exc()
        reason, code = ("disk_full", Exit.DISK) if is_full(folder, error) else (code_of(error), Exit.SYSTEM)
        return end(folder, code, "failed", reason, f"{type(error).__name__}: {error}")
    code = end(folder, Exit.DONE, "succeeded", None, "", benchmarks)
    (folder / JOURNAL).unlink(missing_ok=True)
    return code


def score(config: Path, folder: Path, stop: StopSignal) -> dict[str, Any]:
    """The scores of each benchmark as result.json has them. Raises Stopped, at the latest with the next line of progress."""
    spec = EvaluationSpec.parse(read_document(config))
    check_model(spec.model)
    # Waiting threads sleep: the engine, or another run, may need the core. Before PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from evaluator.evaluate import evaluate

    def say(line: str) -> None:
        stop.check()
        print(line, flush=True)

    return evaluate(spec, folder, say)


def code_of(error: Exception) -> str:
    """A word that programs can tell system faults apart by."""
    from trainer.rollout.vllm_sampler import EngineError

    return "engine" if isinstance(error, EngineError) else "evaluator_error"


def end(
    folder: Path, code: Exit, status: str, reason: str | None, message: str, benchmarks: dict[str, Any] | None = None
) -> Exit:
    """result.json, written last, and a line on standard error where it failed. A result that does not fit is a full disk."""
    fault = {Exit.USER: "user", Exit.SYSTEM: "system", Exit.DISK: "infra"}.get(code)
    try:
        if folder.is_dir():
            write_result(folder, status=status, fault=fault, code=reason, message=message, benchmarks=benchmarks or {})
    except OSError as error:
        code, message = Exit.DISK, f"{message} {error}".strip()
    if message:
        print(f"evaluator: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    main()
