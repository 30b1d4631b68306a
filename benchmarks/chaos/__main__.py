"""Chaos: every part of a running service is killed and frozen at random; in the end the record must be right.

    python -m benchmarks.chaos [--minutes 10] [--jobs N] [--seed S] [--attempts 6] [--folder FOLDER]

A stack of its own (PostgreSQL, Redis, API, two workers, each a process, started again when it dies) trains short jobs, made
evenly over the time, while SIGKILL and SIGSTOP/SIGCONT go to API, workers, trainers, Redis and PostgreSQL. Then it is left
alone until every job has ended, and everything is looked at: states, curves, samples, events, processes, leases. Prints what
was done and found, one line for each violation, and ends with 1 where there is one; the folder is kept then.
"""

import argparse
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from random import Random, SystemRandom

from benchmarks.chaos.havoc import KILL, Havoc
from benchmarks.chaos.jobs import ENDED, Reader, Submitter, make_spec
from benchmarks.chaos.parts import Stack
from benchmarks.chaos.verdict import Reference, Verdict, judge

TICK_SECONDS = 0.05
JOBS_A_MINUTE = 3
REFERENCE_SECONDS = 180.0
STUCK_SECONDS = 180.0  # no event in the record for so long while jobs have not ended


@dataclass(frozen=True, slots=True)
class Report:
    """A chaos run."""

    seconds: float
    jobs: int
    havoc: Havoc
    restarts: dict[str, int]
    requests: int
    settled: float  # seconds from the last act to the end of the last job
    verdict: Verdict


def chaos(folder: Path, seconds: float, jobs: int, seed: int, max_attempts: int) -> Report:
    """Start a stack in `folder`, torment it, and look at what has become of it. Call it from the main thread."""
    spec = make_spec(folder / "inputs")
    stack = Stack(folder / "service", folder / "inputs", max_attempts)
    try:
        stack.start()
        reader = Reader(stack.url)
        alone = Submitter(stack.url, spec, "reference", jobs=1, seconds=0.0)
        alone.start()
        _wait_for_all(stack, reader, alone, REFERENCE_SECONDS)
        reference = Reference.of(reader, alone.ids[0])
        say(f"the reference is trained; {seconds:.0f} s of chaos begin")
        havoc = Havoc(stack, Random(seed))
        submitter = Submitter(stack.url, spec, "chaos", jobs, seconds)
        submitter.start()
        _torment(stack, havoc, seconds)
        began = time.monotonic()
        stack.wait_until_ready()
        _wait_for_all(stack, reader, submitter, STUCK_SECONDS)
        settled = time.monotonic() - began
        stack.wait_until_ready()
        verdict = judge(stack, reference, [*alone.ids, *submitter.ids], max_attempts, havoc.done["trainer", KILL])
        restarts = {part.name: part.restarts for part in stack.parts.values()}
        return Report(seconds, jobs, havoc, restarts, submitter.sent, settled, verdict)
    finally:
        stack.stop()


def _torment(stack: Stack, havoc: Havoc, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        havoc.tick()
        stack.tend()
        time.sleep(TICK_SECONDS)
    havoc.end()


def _wait_for_all(stack: Stack, reader: Reader, submitter: Submitter, patience: float) -> None:
    """Until every job is made and has ended, or nothing has changed for `patience` seconds: the verdict names what has not."""
    before: object = None
    changed = time.monotonic()
    while time.monotonic() - changed < patience:
        if submitter.refused:
            raise RuntimeError(f"the job was refused: {submitter.refused}")
        stack.tend()
        jobs = [reader.job(job_id) for job_id in list(submitter.ids)]
        if not submitter.is_alive() and all(job["status"] in ENDED for job in jobs):
            return
        now = [(job["status"], job["attempt"], job["step"]) for job in jobs]
        if now != before:
            before, changed = now, time.monotonic()
        time.sleep(1.0)


def show(report: Report) -> None:
    """The tables."""
    done, verdict = report.havoc.done, report.verdict
    acts = sorted({act for _, act in done})
    print(f"\n{'sent':14}" + "".join(f"{act:>18}" for act in acts))
    for target in sorted({target for target, _ in done}):
        print(f"{target:14}" + "".join(f"{done[target, act]:18}" for act in acts))
    print(f"{'all':14}" + "".join(f"{sum(done[key] for key in done if key[1] == act):18}" for act in acts))
    print("\nstarted again: " + ", ".join(f"{name} {count}" for name, count in report.restarts.items()))
    print(
        f"jobs: {sum(verdict.statuses.values())} ({report.requests} requests to make {report.jobs}, and the reference): ",
        end="",
    )
    print(", ".join(f"{count} {status}" for status, count in verdict.statuses.items()))
    reasons = ", ".join(f"{reason} {count}" for reason, count in verdict.given_up.most_common())
    print(f"attempts: {verdict.attempts}, {verdict.resumed} of them from a checkpoint; given up for: {reasons or 'nothing'}")
    print(
        f"steps: {verdict.steps} in the curves, {verdict.steps_run} run; samples: {verdict.samples}; events: {verdict.events}"
    )
    print(f"the last job ended {report.settled:.0f} s after the last act; load average {os.getloadavg()[0]:.1f}")
    print(f"violations: {len(verdict.violations)}")
    for violation in verdict.violations:
        print(f"  {violation}")


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.chaos", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--jobs", type=int, help=f"short jobs, besides the reference; {JOBS_A_MINUTE} a minute if left out")
    parser.add_argument("--seed", type=int, help="of what is done to whom and when; random if left out")
    parser.add_argument("--attempts", type=int, default=6, help="MHPO_MAX_ATTEMPTS")
    parser.add_argument("--folder", type=Path, help="a new folder to run in; a temporary one if left out")
    arguments = parser.parse_args()
    seed = SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    jobs = arguments.jobs or max(1, round(JOBS_A_MINUTE * arguments.minutes))
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="mhpo-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"seed {seed}, {folder}")
    report = chaos(folder, 60 * arguments.minutes, jobs, seed, arguments.attempts)
    print(f"{arguments.minutes:g} minutes of chaos, seed {seed}, {os.cpu_count()} cores")
    show(report)
    if report.verdict.violations:
        sys.exit(f"the folder is kept: {folder}")
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
