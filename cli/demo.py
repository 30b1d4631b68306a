"""`mhpo demo`: the first run from nothing to scores, over the same HTTP as everybody uses."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path

from rich.table import Table

from api.settings import Settings
from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.evaluations import model
from cli.panels import NAMES
from cli.plot import show
from cli.process import ask, finish
from cli.run import Run
from cli.say import say, say_aside, say_json, wide_console
from cli.service import ending
from cli.stack import Stack, running
from cli.stopping import Stopped, stopped_by_signals
from cli.submit import read_spec
from cli.watch import follow, shown
from cli.words import duration
from trainer.process import end_with_parent

SPEC = Path(__file__).parents[1] / "examples" / "first-run.toml"
STOP_SECONDS = 5.0
POLL_SECONDS = 0.5
_ENDED = {"succeeded", "failed", "cancelled"}


def demo(settings: Settings, steps: int | None, *, as_json: bool) -> ExitCode:
    """Start the service, prepare the base model, train it (`steps` in place of the example's), compare its scores, stop.

    `as_json`: the job and its evaluations are what is printed; the rest goes to standard error.
    """
    made: list[Json] = []
    try:
        with (
            redirect_stdout(sys.stderr) if as_json else nullcontext(),
            stopped_by_signals(),
            running(settings, say) as stack,
        ):
            return _first_run(stack, steps, made)
    except Stopped as signalled:
        (say_aside if as_json else say)(f"{signalled}: stopped")
        return ExitCode.INTERRUPTED
    finally:
        if as_json:
            for document in made:
                say_json(document)


def _first_run(stack: Stack, steps: int | None, made: list[Json]) -> ExitCode:
    """Train and score; the job and its evaluations are put into `made`."""
    folder = stack.data_dir / "first-run"
    _prepare(folder)
    started = time.monotonic()
    client = Client(stack.url, stack.key)
    job_id = _submit(client, _spec(folder, steps), folder / "job.json")
    with shown() as view, Run.opened(client, job_id, NAMES) as run:
        code = follow(run, view, stack.tend)
    made.append(run.job)
    if code is not ExitCode.DONE:
        say(f"the job {run.job['status']}; its log: {run.job['folder']}/trainer.log")
        return code
    show(run.curve("reward"), "reward")
    made += _scored(run, stack)
    code = _report(made[1:])
    _addresses(run, stack)
    say(f"from POST to the last score: {duration(time.monotonic() - started)}")
    return code


def _prepare(folder: Path) -> None:
    """The base model and the problems, made where they are missing; its progress goes to our own output."""
    argv = [sys.executable, "-m", "trainer.first_run", "--out", str(folder)]
    env = {**os.environ, "TQDM_DISABLE": "1"}  # the progress bars of transformers, between lines of ours
    process = subprocess.Popen(
        argv, stdin=subprocess.DEVNULL, stdout=sys.stdout, env=env, start_new_session=True, preexec_fn=end_with_parent()
    )
    try:
        code = process.wait()
    finally:
        ask(process, signal.SIGTERM)
        finish(process, STOP_SECONDS)
    if code != 0:
        raise CliError(f"the base model could not be made: `{' '.join(argv)}` {ending(code)}")


def _spec(folder: Path, steps: int | None) -> Json:
    """The first-run job, its files in the data folder."""
    spec = read_spec(SPEC)
    spec["steps"] = steps or spec["steps"]
    spec["model"]["path"] = str(folder / "base")
    spec["dataset"]["path"] = str(folder / "train.jsonl")
    spec["evaluation"]["benchmarks"] = [str(folder / "heldout.jsonl")]
    return spec


def _submit(client: Client, spec: Json, body: Path) -> str:
    body.write_text(json.dumps(spec, indent=2) + "\n")
    say(f"curl {client.url}/v1/jobs -H 'content-type: application/json' -d @{body}")
    job = client.post("/v1/jobs", spec)
    say(f"job: {job['id']}")
    return str(job["id"])


def _scored(run: Run, stack: Stack) -> list[Json]:
    """The job's evaluations, once all have ended."""
    waited_for = -1
    while True:
        evaluations = run.evaluations()
        left = [each for each in evaluations if each["status"] not in _ENDED]
        if not left:
            return evaluations
        if len(left) != waited_for:
            say(f"waiting for {len(left)} of {len(evaluations)} evaluations")
            waited_for = len(left)
        stack.tend()
        time.sleep(POLL_SECONDS)


def _report(evaluations: list[Json]) -> ExitCode:
    """Print what the base model and the final checkpoint score; FAILED where an evaluation has no score."""
    failed = [each for each in evaluations if each["status"] != "succeeded"]
    for each in failed:
        say(f"evaluation of {model(each)} {each['status']}: {(each['status_reason'] or {}).get('message', 'no reason given')}")
    table = Table("model", "benchmark", "avg", "95% interval", "problems", "samples a problem")
    for each in evaluations:
        for name, score in (each["result"] or {}).get("benchmarks", {}).items():
            interval = f"{score['ci_low']:.3f} to {score['ci_high']:.3f}"
            table.add_row(model(each), name, f"{score['avg']:.3f}", interval, str(score["problems"]), str(score["n"]))
    wide_console().print(table)
    return ExitCode.FAILED if failed or not evaluations else ExitCode.DONE


def _addresses(run: Run, stack: Stack) -> None:
    final = [each for each in run.checkpoints() if each["final"]]
    say(f"model and checkpoint: {final[-1]['path'] if final else 'none'}")
    say(f"run folder: {run.job['folder']}")
    say(f"logs: {stack.logs}")
    say(f"the service stops now; `mhpo up --data-dir {stack.data_dir}` starts it again with this job in it, its API at /docs")
