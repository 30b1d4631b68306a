"""`python -m trainer CONFIG [--out FOLDER]`: one run, with no service.

CONFIG is a spec in TOML or JSON, or a run folder to go on with. Everything is written into the run folder: FOLDER, or
the config's own folder where the config is called config.json, or runs/<name of the config>. A folder that holds a
checkpoint is resumed.
"""

import argparse
import os
import sys
import traceback
from contextlib import suppress
from pathlib import Path

from trainer.config import JobSpec, load_spec
from trainer.data import check_sources
from trainer.disk import is_full
from trainer.exits import Exit
from trainer.run_folder import RunFolder, write_atomically, write_result
from trainer.stopping import Stopped, StopSignal
from trainer.strict import SpecError


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m trainer", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("config", type=Path, help="spec (TOML or JSON), or a run folder to go on with")
    parser.add_argument("--out", type=Path, help="run folder")
    arguments = parser.parse_args()
    config = arguments.config / "config.json" if arguments.config.is_dir() else arguments.config
    folder = arguments.out or default_folder(config)
    try:
        spec = load_spec(config)
    except SpecError as error:
        sys.exit(refuse(folder, error))
    if not remember(spec, folder):
        print(f"trainer: {folder} holds a run of another spec; choose another folder with --out", file=sys.stderr)
        sys.exit(Exit.USER)
    sys.exit(run(spec, folder))


def default_folder(config: Path) -> Path:
    """The run folder where none is given."""
    return config.parent if config.name == "config.json" else Path("runs") / config.stem


def remember(spec: JobSpec, folder: Path) -> bool:
    """Writes config.json; False, and nothing written, where the folder holds a run of another spec."""
    path = folder / "config.json"
    if path.exists():
        return load_spec(path) == spec
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(path, spec.model_dump_json(indent=1) + "\n")
    return True


def run(spec: JobSpec, path: Path) -> Exit:
    """Trains, and says in result.json and by the exit code how it ended."""
    try:
        check_sources(spec)
    except SpecError as error:
        return refuse(path, error)
    # Waiting threads sleep: the engine, or another run, may need the core. Before PyTorch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from trainer.learner import NotFiniteError
    from trainer.train import train

    stop, folder = StopSignal(), RunFolder(path)
    stop.listen()
    try:
        step = train(spec, folder, stop)
    except Stopped:
        write_result(path, status="stopped", fault=None, code=None, message="told to stop", step=last_step(path))
        return Exit.STOPPED
    except SpecError as error:
        return refuse(path, error)
    except NotFiniteError as error:
        return fail(path, "numeric", str(error), Exit.USER)
    except Exception as error:  # noqa: BLE001  # the border of the process: whatever else went wrong is our fault, and says so
        if stop.requested:  # the engine's end, say, when the whole process group was told to stop
            write_result(path, status="stopped", fault=None, code=None, message="told to stop", step=last_step(path))
            return Exit.STOPPED
        traceback.print_exc()
        code, exit_code = ("disk_full", Exit.DISK) if is_full(path, error) else (code_of(error), Exit.SYSTEM)
        return fail(path, code, f"{type(error).__name__}: {error}", exit_code)
    folder.write_event(step, "finished", f"trained to step {step}")
    write_result(path, status="succeeded", fault=None, code=None, message="", step=step)
    return Exit.DONE


def code_of(error: Exception) -> str:
    """A word that programs can tell system faults apart by."""
    from trainer.ranks import RankError
    from trainer.rollout.sampler import WeightSyncError
    from trainer.rollout.vllm_sampler import EngineError

    words = {WeightSyncError: "weight_sync", EngineError: "engine", RankError: "learner_rank"}
    return next((word for kind, word in words.items() if isinstance(error, kind)), "trainer_error")


def refuse(path: Path, error: SpecError) -> Exit:
    """The spec, the data or the model cannot be used."""
    return fail(path, "bad_spec", str(error), Exit.USER)


def fail(path: Path, code: str, message: str, exit_code: Exit) -> Exit:
    """result.json, where there is room for it, and a line on standard error."""
    fault = {Exit.USER: "user", Exit.DISK: "infra"}.get(exit_code, "system")
    with suppress(OSError):
        if path.is_dir():
            write_result(path, status="failed", fault=fault, code=code, message=message, step=last_step(path))
    print(f"trainer: {message}", file=sys.stderr)
    return exit_code


def last_step(path: Path) -> int:
    """The last step with a metrics line; 0 before the first."""
    from trainer.run_folder import read_lines

    metrics = path / "metrics.jsonl"
    return max((line["step"] for line in read_lines(metrics)), default=0) if metrics.exists() else 0


if __name__ == "__main__":
    main()
