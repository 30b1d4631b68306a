"""Runs the process of a claimed job or evaluation to its end and says in the record how it ended."""

import json
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from api.database import OUTAGES, transaction
from api.models import Evaluation, Job, Json, Status
from api.reason import CANCELLED
from api.record import Claim, Lease, LeaseLostError, finish, heartbeat, requeue
from api.scores import store_scores
from api.settings import settings
from trainer import remote_code
from worker import devices
from worker.drain import draining
from worker.fence import Fence, now
from worker.lease import Keeper
from worker.outcome import Ended, Unfinished, outcome
from worker.process import Child

logger = logging.getLogger(__name__)

POLL_SECONDS = 0.1  # between two looks at the process
FEED_SECONDS = 0.5  # between two looks at its files
OUTAGE_SECONDS = 1.0  # between two tries to reach a database that does not answer
_SECRETS = {"MHPO_DATABASE_URL", "MHPO_REDIS_URL", "MHPO_API_KEY"}  # what runs the user's data has no business there


@dataclass(frozen=True, slots=True)
class Run:
    """What is run for a claim: `python -m program folder/config.json`, and how its files get into the record."""

    claim: Claim
    program: str
    folder: Path
    feed: Callable[[], bool]  # takes in the next piece of its files; False where there was nothing new

    @property
    def log(self) -> Path:
        return self.folder / f"{self.program}.log"


def supervise(run: Run, held_until: float) -> None:
    """Start the process, keep the lease, feed the record, stop the process when asked, and finish or give back the claim.

    `held_until` is when the lease ends by the boot clock. Raises LeaseLostError, the process and all its descendants dead
    and nothing written about the end, where the lease was lost.
    """
    with Fence(held_until) as fence:
        keeper = Keeper(run.claim, fence)
        feed_all(run, keeper)  # what an earlier worker left unread, before its files change again
        child = start(run)
        try:
            fence.guard(child)
            asked_to_stop = watch(run, child, keeper)
        finally:
            code = child.reap()
        feed_all(run, keeper)
        end = outcome(run.program, code, run.folder, run.log, asked_to_stop=asked_to_stop)
        conclude(run.claim, end, keeper)


def start(run: Run) -> Child:
    """Start the process in a prepared folder; what an earlier attempt said of its end is removed."""
    config = run.folder / "config.json"
    run.folder.mkdir(parents=True, exist_ok=True)
    write_once(config, run.claim.spec)
    (run.folder / "result.json").unlink(missing_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in _SECRETS}
    environment[remote_code.VARIABLE] = str(settings().trust_remote_code).lower()
    if run.claim.table is Job:  # an evaluation shares the machine's GPUs with what has leased them
        environment |= devices.environment(
            run.claim.devices, str(settings().data_dir.resolve()), os.environ.get(devices.VISIBLE)
        )
    command = [sys.executable, "-m", run.program, str(config)]
    return Child.start(run.claim.id, command, run.log, {**environment, "PYTHONUNBUFFERED": "1"})


def watch(run: Run, child: Child, keeper: Keeper) -> bool:
    """Until the process has ended: TERM when it is to stop, KILL after the grace. Returns whether it was asked to stop."""
    kill_at: float | None = None
    next_feed = 0.0
    while not child.ended():
        keeper.keep()
        if kill_at is None and (keeper.stop_requested or draining()):
            logger.info("%s: asking process %d to stop", run.claim.id, child.pid)
            child.terminate()
            kill_at = now() + settings().cancel_grace_seconds
        if kill_at is not None and now() >= kill_at:
            logger.warning("%s: process %d has not stopped in time and is killed", run.claim.id, child.pid)
            child.kill()
        if now() >= next_feed:
            feed(run)
            next_feed = now() + FEED_SECONDS
        time.sleep(POLL_SECONDS)
    return kill_at is not None


def feed(run: Run) -> None:
    """Take in what is new; an outage costs nothing, the files keep everything."""
    try:
        run.feed()
    except OUTAGES as error:
        logger.warning("%s: the record does not answer, its files wait: %s", run.claim.id, error)


def feed_all(run: Run, keeper: Keeper) -> None:
    """Take in everything that is there, through an outage as long as the lease lasts."""

    def rest() -> bool:
        return not run.feed()

    _persist(rest, keeper)


def conclude(claim: Claim, end: Ended | Unfinished, keeper: Keeper) -> None:
    """Write how it ended, through an outage as long as the lease lasts; raises LeaseLostError."""

    def write() -> bool:
        _write(claim, end)
        return True

    _persist(write, keeper)


def _persist(attempt: Callable[[], bool], keeper: Keeper) -> None:
    """Call `attempt` until it says that it is done."""
    done = False
    while not done:
        keeper.keep()
        try:
            done = attempt()
        except OUTAGES as error:
            logger.warning("the record does not answer, trying again: %s", error)
            time.sleep(OUTAGE_SECONDS)


def _write(claim: Claim, end: Ended | Unfinished) -> None:
    """One transaction, in which the row's lock orders a request to cancel or to pause before or after the end."""
    with transaction() as session:
        lease = heartbeat(session, claim)
        if lease is Lease.LOST:
            raise LeaseLostError(claim.id)
        if lease is Lease.CANCEL_REQUESTED:
            finish(session, claim, Status.CANCELLED, CANCELLED)
        elif isinstance(end, Ended):
            finish(session, claim, end.status, end.reason, end.result if claim.table is Evaluation else None)
            if claim.table is Evaluation and end.status is Status.SUCCEEDED and end.result is not None:
                store_scores(session, claim, end.result)
        else:
            requeue(session, claim, end.reason, crashed=end.crashed)


def write_once(file: Path, document: Json) -> None:
    """Write a JSON file as a whole, unless it is there already."""
    if file.exists():
        return
    partial = file.with_suffix(".partial")
    with partial.open("w", encoding="utf-8") as stream:
        json.dump(document, stream, indent=2)
        stream.flush()
        os.fsync(stream.fileno())
    partial.rename(file)
