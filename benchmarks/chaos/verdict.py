"""What must be true once the service has come to rest, whatever was done to it. Each violation is one line."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy import create_engine, inspect, text

from benchmarks.chaos.havoc import title
from benchmarks.chaos.jobs import ENDED, EVERY, STEPS, Reader
from benchmarks.chaos.parts import Stack
from worker.lines import EventLine, parse_lines

# Which status may follow which; the first is queued.
FOLLOWS = {"queued": {"running"}, "running": {"queued", "succeeded", "failed"}}
LOST = {"worker_lost", "trainer_crashed", "worker_error"}  # an attempt that was used up


@dataclass(frozen=True, slots=True)
class Reference:
    """What a job of the spec computes that nothing happens to."""

    curves: dict[str, tuple[list[int], list[float]]]
    samples: dict[int, list[Any]]

    @classmethod
    def of(cls, reader: Reader, job_id: str) -> "Reference":
        return cls(reader.curves(job_id), {step: reader.samples(job_id, step) for step in range(1, STEPS + 1)})


@dataclass(slots=True)
class Verdict:
    """What was found, and what of it must not be."""

    statuses: Counter[str] = field(default_factory=Counter)
    attempts: int = 0
    given_up: Counter[str] = field(default_factory=Counter)  # reasons for which an attempt was given up
    resumed: int = 0  # attempts that went on from a checkpoint
    steps: int = 0  # in the curves
    steps_run: int = 0  # metrics lines in the run folders, repeated ones included
    samples: int = 0
    events: int = 0
    violations: list[str] = field(default_factory=list)


def judge(stack: Stack, reference: Reference, made: list[str], max_attempts: int, trainers_killed: int) -> Verdict:
    """Look at everything once; `made`: the ids that the creates were answered with."""
    verdict = Verdict()
    reader = Reader(stack.url)
    listed = reader.listed()
    if Counter(listed) != Counter(made):
        verdict.violations.append(f"{len(made)} creates were answered, and there are {len(listed)} jobs")
    for job_id in listed:
        found = _judge_job(reader, job_id, reference, max_attempts, verdict)
        verdict.violations += [f"{job_id}: {each}" for each in found]
    if verdict.given_up["trainer_crashed"] > trainers_killed:
        crashed = verdict.given_up["trainer_crashed"]
        verdict.violations.append(f"{crashed} trainers ended by themselves or by each other's workers, {trainers_killed} by us")
    verdict.violations += _held(stack)
    verdict.violations += _orphans(stack)
    return verdict


def _judge_job(reader: Reader, job_id: str, reference: Reference, max_attempts: int, verdict: Verdict) -> Iterator[str]:
    job, events = reader.job(job_id), reader.events(job_id)
    verdict.statuses[job["status"]] += 1
    verdict.attempts += job["attempt"]
    verdict.events += len(events)
    yield from _state(job, events, max_attempts, verdict)
    yield from _curves(reader, job, reference, verdict)
    yield from _log(job, events, verdict)
    if job["status"] == "succeeded":
        yield from _checkpoints(reader, job_id)


def _state(job: Any, events: list[Any], max_attempts: int, verdict: Verdict) -> Iterator[str]:
    """The status, and the history that the events tell of it."""
    told = [event for event in events if event["type"] == "status"]
    history = [event["data"]["status"] for event in told]
    if job["status"] not in ENDED:
        yield f"it has not ended: {job['status']}, {job['status_reason']}"
    if not history or history[0] != "queued" or history[-1] != job["status"]:
        yield f"it is {job['status']}, and its events tell {history}"
    for before, after in pairwise(history):
        if after not in FOLLOWS.get(before, set()):
            yield f"{after} follows {before} in {history}"
    attempts = [event["attempt"] for event in told if event["data"]["status"] == "running"]
    if attempts != list(range(1, job["attempt"] + 1)):
        yield f"attempt {job['attempt']}, and its events tell of the attempts {attempts}"
    reasons = [event["data"]["reason"]["code"] for event in told if event["data"].get("reason")]
    verdict.given_up.update(reasons)
    lost = sum(reason in LOST for reason in reasons)
    if job["status"] == "failed" and not (lost == max_attempts and job["status_reason"]["code"] in LOST):
        yield f"it failed after {lost} of {max_attempts} lost attempts: {job['status_reason']}"
    if job["status"] == "succeeded" and (job["step"] != STEPS or job["status_reason"] is not None):
        yield f"it succeeded at step {job['step']} of {STEPS}, {job['status_reason']}"
    if any(job[name] for name in ("worker", "cancel_requested", "pause_requested")):
        yield f"it has ended and is held by {job['worker']}"


def _curves(reader: Reader, job: Any, reference: Reference, verdict: Verdict) -> Iterator[str]:
    """Every step up to the job's once, with the values of a job that nothing happened to; samples likewise."""
    done = list(range(1, job["step"] + 1))
    curves = reader.curves(job["id"])
    verdict.steps += len(done)
    # Of a job that was given up early: some metrics begin later, as those of completions that have ended.
    known = {name for name, (steps, _) in reference.curves.items() if steps[0] <= job["step"]}
    if done and set(curves) != known:
        yield f"its metrics differ from the reference's by {sorted(set(curves) ^ known)}"
    for name, (steps, values) in curves.items():
        expected = reference.curves.get(name, ([], []))
        if steps != [step for step in expected[0] if step in done]:
            yield f"the curve of {name} has a gap or a double: {steps}"
        elif values != expected[1][: len(values)]:
            first = next(step for step, one, other in zip(steps, values, expected[1], strict=False) if one != other)
            yield f"the curve of {name} differs from the reference from step {first} on"
    for step in done:
        samples = reader.samples(job["id"], step)
        verdict.samples += len(samples)
        if samples != reference.samples[step]:
            yield f"the {len(samples)} samples of step {step} are not the reference's"


def _log(job: Any, events: list[Any], verdict: Verdict) -> Iterator[str]:
    """Every event that the trainer wrote is in the record once, in its order."""
    folder = Path(job["folder"])
    if (folder / "metrics.jsonl").exists():
        verdict.steps_run += (folder / "metrics.jsonl").read_bytes().count(b"\n")
    ids = [event["id"] for event in events]
    if ids != sorted(set(ids)):
        yield "its events are not in the order of their ids"
    reported = [(event["type"], event["step"]) for event in events if event["reported_at"] is not None]
    verdict.resumed += sum(kind == "resumed" and bool(step) for kind, step in reported)
    file = folder / "events.jsonl"
    written = [(line.type, line.step) for line in parse_lines(file.read_bytes(), EventLine)[0]] if file.exists() else []
    whole = job["status"] == "succeeded"  # nobody reads on what the last of the lost attempts wrote
    if (reported != written) if whole else (reported != written[: len(reported)]):
        yield f"{len(written)} events in its folder, {len(reported)} in the record"


def _checkpoints(reader: Reader, job_id: str) -> Iterator[str]:
    rows = reader.get(f"/jobs/{job_id}/checkpoints")["data"]
    missing = set(range(EVERY, STEPS + 1, EVERY)) - {row["step"] for row in rows}
    if missing:
        yield f"no checkpoint of steps {sorted(missing)} is recorded"
    if not rows or not (rows[-1]["final"] and rows[-1]["available"]):
        yield "its last checkpoint is not there"


def _held(stack: Stack) -> Iterator[str]:
    """Leases, GPU slots and hints that nobody has a use for."""
    engine = create_engine(stack.postgres.url)
    with engine.connect() as connection:
        for table in ("jobs", "evaluations"):
            for row in connection.execute(text(f"SELECT id, lease_owner FROM {table} WHERE lease_token IS NOT NULL")):
                yield f"{row.id}: its lease is still held by {row.lease_owner}"
        if inspect(connection).has_table("gpu_slots"):
            for slot in connection.execute(text("SELECT * FROM gpu_slots")).mappings():
                if any(slot.get(column) is not None for column in ("job_id", "lease_token", "holder")):
                    yield f"a GPU slot is still held: {dict(slot)}"
        waiting = connection.execute(text("SELECT count(*) FROM outbox")).scalar_one()
        if waiting:
            yield f"{waiting} hints wait in the outbox"
    engine.dispose()


def _orphans(stack: Stack) -> Iterator[str]:
    """Processes that name the data folder and belong to no part of the service."""
    expected = stack.processes()
    me = psutil.Process()
    for process in psutil.process_iter():
        if process in expected or process == me or str(stack.data_dir) not in title(process) + _mark(process):
            continue
        yield f"process {process.pid} is left: {title(process)}"


def _mark(process: psutil.Process) -> str:
    """The folder that its environment names, as that of everything below a trainer does."""
    try:
        return str(process.environ().get("MHPO_DATA_DIR", ""))
    except psutil.Error:
        return ""
