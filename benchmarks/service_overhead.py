"""What the service costs: the first-run job through the whole service, beside `python -m trainer` on the same spec.

    python -m benchmarks.service_overhead [--engine vllm|transformers] [--steps 110] [--data-dir .mhpo]

Both runs include the start of the engine. A job's wall time is from POST to its terminal status, as the record has it. The
metrics of the two must be equal, those that depend on the clock excepted; the command fails where they are not.
"""

import argparse
import os
import sys
import tempfile
from contextlib import redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.first_run import ROOT, first_run_spec, run
from cli.client import Client
from cli.errors import ExitCode
from cli.run import Run
from cli.stack import Stack, running, settings_from
from cli.view import LineView
from cli.watch import follow
from trainer.config import JobSpec
from trainer.metrics import is_wall_clock
from trainer.run_folder import read_lines


def through_the_service(spec: JobSpec, stack: Stack) -> tuple[list[dict[str, float]], float]:
    """Metrics of each step as the run folder has them, and seconds from POST to the end."""
    client = Client(stack.url, stack.key)
    job_id = client.post("/v1/jobs", spec.model_dump(mode="json"))["id"]
    with redirect_stdout(sys.stderr), Run.opened(client, job_id) as job:
        code = follow(job, LineView(), stack.tend)
    if code is not ExitCode.DONE:
        sys.exit(f"the job {job.job['status']}: {job.job['status_reason']}")
    return [line["metrics"] for line in read_lines(Path(job.job["folder"]) / "metrics.jsonl")], seconds_between(job.job)


def seconds_between(job: dict[str, Any]) -> float:
    """From the job's creation to its end."""
    start, end = (datetime.fromisoformat(job[name]) for name in ("created_at", "finished_at"))
    return (end - start).total_seconds()


def without_clock(steps: list[dict[str, float]]) -> list[dict[str, float]]:
    """The metrics that every run of the spec must share."""
    return [{name: value for name, value in step.items() if not is_wall_clock(name)} for step in steps]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service_overhead", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="vllm")
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".mhpo")
    arguments = parser.parse_args()
    os.environ["MHPO_ALLOWED_ROOTS"] = str(arguments.data_dir)
    spec = first_run_spec(arguments.data_dir, arguments.engine, arguments.steps)
    with tempfile.TemporaryDirectory() as folder:
        alone, trainer_seconds = run(spec, Path(folder) / "run")
        with running(
            settings_from(data_dir=Path(folder) / "service", port=0), say=lambda line: print(line, flush=True)
        ) as stack:
            served, job_seconds = through_the_service(spec, stack)
    same = without_clock(alone) == without_clock(served)
    print(f"trainer alone {trainer_seconds:.1f} s, the job {job_seconds:.1f} s")
    print(f"overhead: {(job_seconds - trainer_seconds) / trainer_seconds:+.2%}")
    print(f"metrics of the {arguments.steps} steps: {'equal' if same else 'NOT EQUAL'}")
    sys.exit(not same)


if __name__ == "__main__":
    main()
