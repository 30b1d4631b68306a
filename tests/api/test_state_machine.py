"""Verbs, workers and lost leases in any order: each change of status is one of the table, a terminal one stays, only the holder
writes, and the events tell the history."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, strategies
from hypothesis import settings as bounds
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from sqlalchemy import text

from api.database import engine, transaction
from api.ingest import Span, store_checkpoint, store_metrics, tail_offset
from api.models import TERMINAL, Job, Json, Phase, Status
from api.reason import CANCELLED, Fault, Reason
from api.record import Claim, Lease, LeaseLostError, claim_next, finish, heartbeat, reap, requeue, set_phase
from api.settings import settings
from tests.api.conftest import expire_leases, rows

FOLLOWS = {
    Status.QUEUED: {Status.RUNNING, Status.PAUSED, Status.CANCELLED},
    Status.RUNNING: {Status.QUEUED, Status.PAUSED, *TERMINAL},
    Status.PAUSED: {Status.QUEUED, Status.CANCELLED},
}
LOST = Reason("lost", Fault.INFRA, "It was lost.", retryable=True)
MOST_JOBS = 4
some = strategies.integers(0, 11)  # of the jobs or claims there are, counted on from the start


@dataclass
class Known:
    """What a job must be by the verbs that it has gone through."""

    history: list[Status] = field(default_factory=lambda: [Status.QUEUED])
    holder: Claim | None = None
    attempt: int = 0
    crashes: int = 0
    cancelling: bool = False
    pausing: bool = False
    steps: list[tuple[int, int]] = field(default_factory=list)  # (attempt, step) of its metrics
    end: tuple[Any, ...] | None = None  # its row when it ended

    @property
    def status(self) -> Status:
        return self.history[-1]

    def become(self, status: Status) -> None:
        self.history.append(status)
        self.pausing = False
        if status is not Status.RUNNING:
            self.holder = None

    def give_back(self, *, crashed: bool) -> Status:
        """The holder's process is gone, and it has not ended the job."""
        self.crashes += crashed
        if self.cancelling:
            self.crashes -= crashed
            self.become(Status.CANCELLED)
        elif self.pausing:
            self.become(Status.PAUSED)
        else:
            self.become(Status.QUEUED if self.crashes < settings().max_attempts else Status.FAILED)
        return self.status


class Record(RuleBasedStateMachine):
    """The API's verbs over HTTP, and what workers and reaper do, against the record."""

    def __init__(self, client: httpx.Client, spec: Json) -> None:
        super().__init__()
        self._client = client
        self._spec = spec
        self._jobs: dict[str, Known] = {}
        self._claims: list[Claim] = []
        with engine().begin() as connection:
            connection.execute(text("TRUNCATE jobs CASCADE"))

    def _job(self, number: int) -> tuple[str, Known]:
        return list(self._jobs.items())[number % len(self._jobs)]

    def _claim(self, number: int) -> tuple[Claim, Known, bool]:
        """A claim that was ever given, its job, and whether it holds it."""
        claim = self._claims[number % len(self._claims)]
        known = self._jobs[claim.job_id]
        return claim, known, known.holder is claim

    def _post(self, path: str, body: Json | None = None, *, refused: str | None) -> Json:
        answer = self._client.post(path, json=body)
        assert answer.status_code in ((409,) if refused else (200, 201)), answer.text
        document: Json = answer.json()
        assert refused is None or document["error"]["code"] == refused
        return document

    @precondition(lambda self: len(self._jobs) < MOST_JOBS)
    @rule()
    def create(self) -> None:
        self._jobs[self._post("/v1/jobs", self._spec, refused=None)["id"]] = Known()

    @precondition(lambda self: 0 < len(self._jobs) < MOST_JOBS)
    @rule(number=some)
    def clone(self, number: int) -> None:
        job_id, _ = self._job(number)
        self._jobs[self._post(f"/v1/jobs/{job_id}/clone", {"steps": 12}, refused=None)["id"]] = Known()

    @precondition(lambda self: 0 < len(self._jobs) < MOST_JOBS)
    @rule(number=some)
    def retry(self, number: int) -> None:
        job_id, known = self._job(number)
        refused = None if known.status in (Status.FAILED, Status.CANCELLED) else "wrong_status"
        made = self._post(f"/v1/jobs/{job_id}/retry", refused=refused)
        if refused is None:
            self._jobs[made["id"]] = Known()

    @precondition(lambda self: self._jobs)
    @rule(number=some)
    def cancel(self, number: int) -> None:
        job_id, known = self._job(number)
        self._post(f"/v1/jobs/{job_id}/cancel", refused="job_ended" if known.status in TERMINAL else None)
        if known.status is Status.RUNNING:
            known.cancelling = True
        elif known.status not in TERMINAL:
            known.become(Status.CANCELLED)

    @precondition(lambda self: self._jobs)
    @rule(number=some)
    def pause(self, number: int) -> None:
        job_id, known = self._job(number)
        refused = "job_ended" if known.status in TERMINAL else "wrong_status" if known.cancelling else None
        self._post(f"/v1/jobs/{job_id}/pause", refused=refused)
        if refused is None and known.status is Status.RUNNING:
            known.pausing = True
        elif refused is None and known.status is Status.QUEUED:
            known.become(Status.PAUSED)

    @precondition(lambda self: self._jobs)
    @rule(number=some)
    def resume(self, number: int) -> None:
        job_id, known = self._job(number)
        waits = known.status is Status.PAUSED
        refused = None if waits else "job_ended" if known.status in TERMINAL else "wrong_status"
        self._post(f"/v1/jobs/{job_id}/resume", refused=refused)
        if waits:
            known.crashes = 0
            known.become(Status.QUEUED)

    @rule()
    def claim(self) -> None:
        queued = [job_id for job_id, known in self._jobs.items() if known.status is Status.QUEUED]
        with transaction() as session:
            claim = claim_next(session, Job, "worker")
        assert (claim is not None) == bool(queued)
        if claim is not None:
            assert claim.job_id in queued
            known = self._jobs[claim.job_id]
            known.become(Status.RUNNING)
            known.holder, known.attempt = claim, known.attempt + 1
            self._claims.append(claim)

    @precondition(lambda self: self._claims)
    @rule(number=some)
    def beat(self, number: int) -> None:
        claim, known, holds = self._claim(number)
        with transaction() as session:
            found = heartbeat(session, claim)
        flagged = Lease.CANCEL_REQUESTED if known.cancelling else Lease.PAUSE_REQUESTED if known.pausing else Lease.HELD
        assert found is (flagged if holds else Lease.LOST)

    @precondition(lambda self: self._claims)
    @rule(number=some)
    def progress(self, number: int) -> None:
        claim, known, holds = self._claim(number)
        step = len(known.steps) + 1
        with _lost_unless(holds), transaction() as session:
            start = tail_offset(session, claim.job_id, "metrics.jsonl")
            line = {"step": step, "time": 1.0, "metrics": {"reward": 0.5}}
            store_metrics(session, claim, [line], Span("metrics.jsonl", start, start + 10))
        if holds:
            known.steps.append((claim.attempt, step))

    @precondition(lambda self: self._claims)
    @rule(number=some)
    def save(self, number: int) -> None:
        claim, known, holds = self._claim(number)
        with _lost_unless(holds), transaction() as session:
            set_phase(session, claim, Phase.CHECKPOINTING)
            store_checkpoint(session, claim, len(known.steps), "checkpoints/step", final=False)

    @precondition(lambda self: self._claims)
    @rule(number=some, succeeds=strategies.booleans())
    def end(self, number: int, succeeds: bool) -> None:
        claim, known, holds = self._claim(number)
        status, reason = (Status.SUCCEEDED, None) if succeeds else (Status.FAILED, LOST)
        if known.cancelling:
            status, reason = Status.CANCELLED, CANCELLED
        with transaction() as session:
            assert finish(session, claim, status, reason) is holds
        if holds:
            known.become(status)

    @precondition(lambda self: self._claims)
    @rule(number=some, crashed=strategies.booleans())
    def give_back(self, number: int, crashed: bool) -> None:
        claim, known, holds = self._claim(number)
        with transaction() as session:
            became = requeue(session, claim, LOST, crashed=crashed)
        assert became is (known.give_back(crashed=crashed) if holds else None)

    @rule()
    def lose_every_worker(self) -> None:
        expire_leases()
        with transaction() as session:
            moved = reap(session, Job)
        told = {job_id: status for status, ids in moved.items() for job_id in ids}
        held = {job_id: known for job_id, known in self._jobs.items() if known.holder is not None}
        assert told == {job_id: known.give_back(crashed=True) for job_id, known in held.items()}

    @invariant()
    def the_record_is_what_the_verbs_made_of_it(self) -> None:
        found = {row[0]: row[1:] for row in rows("SELECT id, status, attempt, crashes, lease_token FROM jobs")}
        for job_id, known in self._jobs.items():
            token = known.holder and known.holder.lease_token
            assert found[job_id] == (known.status, known.attempt, known.crashes, token), known.history
        assert len(found) == len(self._jobs)

    @invariant()
    def the_events_tell_the_history(self) -> None:
        told: dict[str, list[str]] = {}
        for job_id, status in rows("SELECT job_id, data ->> 'status' FROM events WHERE type = 'status' ORDER BY id"):
            told.setdefault(job_id, []).append(status)
        assert told == {job_id: known.history for job_id, known in self._jobs.items()}
        for history in told.values():
            assert all(after in FOLLOWS[Status(before)] for before, after in pairwise(history)), history

    @invariant()
    def what_has_ended_stays_as_it_was(self) -> None:
        whole = {row[0]: row for row in rows("SELECT id, jobs::text FROM jobs")}
        for job_id, known in self._jobs.items():
            if known.status in TERMINAL:
                known.end = known.end or whole[job_id]
                assert whole[job_id] == known.end

    @invariant()
    def only_holders_wrote(self) -> None:
        for job_id, known in self._jobs.items():
            written = rows("SELECT attempt, step FROM step_metrics WHERE job_id = :job_id ORDER BY step", job_id=job_id)
            assert written == known.steps


def _lost_unless(holds: bool) -> AbstractContextManager[object]:
    return nullcontext() if holds else pytest.raises(LeaseLostError)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No wait between two attempts."""
    monkeypatch.setenv("MHPO_BACKOFF_SECONDS", "1e-9")
    settings.cache_clear()
    yield
    monkeypatch.undo()
    settings.cache_clear()


@pytest.mark.slow
def test_any_order_of_verbs_and_failures_keeps_the_record_true(client: httpx.Client, spec: Json, at_once: None) -> None:
    few = bounds(max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(lambda: Record(client, spec), settings=few)  # type: ignore[arg-type]  # a factory will do
