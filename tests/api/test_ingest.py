"""What a run wrote is recorded exactly once, by the holder of the lease alone."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest

from api import curves, ingest, record_read
from api.database import transaction
from api.ingest import (
    Span,
    TailMovedError,
    store_checkpoint,
    store_events,
    store_metrics,
    store_resumed,
    store_samples,
    tail_offset,
)
from api.reason import WORKER_LOST
from api.record import Claim, LeaseLostError, requeue
from api.record_read import find_job
from api.settings import settings
from api.storable import storable
from tests.api.conftest import claimed, rows

Running = Callable[..., Claim]


def line(step: int, **metrics: Any) -> dict[str, Any]:
    return {"step": step, "time": 1760000000.5, "metrics": metrics}


def event(message: str) -> dict[str, Any]:
    return {"time": 1.0, "step": 1, "level": "info", "type": "phase", "message": message, "data": {"phase": "rollout"}}


def sample(text: str) -> dict[str, Any]:
    return {"step": 1, "problem_id": "p", "prompt": "1+1=", "answer": "2", "completions": [{"text": text, "reward": 1.0}]}


def test_lines_and_their_offset_are_recorded_together(running: Running) -> None:
    claim = running()
    with transaction() as session:
        store_metrics(session, claim, [line(1, reward=0.25), line(2, reward=0.5)], Span("metrics.jsonl", 0, 100))
        store_events(session, claim, [event("a"), event("b")], Span("events.jsonl", 0, 60))
    with transaction() as session:
        assert tail_offset(session, claim.job_id, "metrics.jsonl") == 100
        assert tail_offset(session, claim.job_id, "events.jsonl") == 60
        assert tail_offset(session, claim.job_id, "other.jsonl") == 0
    assert rows("SELECT step, attempt, metrics FROM step_metrics ORDER BY step") == [
        (1, 1, {"reward": 0.25}),
        (2, 1, {"reward": 0.5}),
    ]
    assert rows("SELECT step FROM jobs") == [(2,)]
    assert rows("SELECT message, extract(epoch FROM reported_at)::float FROM events WHERE type = 'phase' ORDER BY id") == [
        ("a", 1.0),
        ("b", 1.0),
    ]


@pytest.mark.parametrize("start", [0, 50])
def test_of_two_writers_of_the_same_bytes_one_succeeds(running: Running, start: int) -> None:
    claim, barrier = running(), Barrier(4)
    if start:
        with transaction() as session:
            store_events(session, claim, [event("first")], Span("events.jsonl", 0, start))

    def store(_: int) -> bool:
        barrier.wait()
        try:
            with transaction() as session:
                store_events(session, claim, [event("once")], Span("events.jsonl", start, 90))
        except TailMovedError:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(store, range(4))) == [False, False, False, True]
    assert rows("SELECT count(*) FROM events WHERE message = 'once'") == [(1,)]


def test_bytes_that_do_not_join_on_are_refused(running: Running) -> None:
    claim = running()
    with transaction() as session:
        store_events(session, claim, [event("kept")], Span("events.jsonl", 0, 40))
    for start in (50, 30, 0):  # a gap, an overlap, a beginning that was recorded already
        with pytest.raises(TailMovedError), transaction() as session:
            store_events(session, claim, [event("refused")], Span("events.jsonl", start, 60))
    assert rows("SELECT message FROM events WHERE type = 'phase'") == [("kept",)]
    assert rows("SELECT bytes FROM tails") == [(40,)]


def test_a_stale_holder_writes_nothing(running: Running) -> None:
    stale = running()
    with transaction() as session:
        requeue(session, stale, WORKER_LOST, crashed=True)
    claimed(stale.job_id)
    writes: list[Callable[[Any], object]] = [
        lambda session: store_metrics(session, stale, [line(1, reward=1.0)], Span("metrics.jsonl", 0, 10)),
        lambda session: store_events(session, stale, [event("stale")], Span("events.jsonl", 0, 10)),
        lambda session: store_samples(session, stale, 1, [sample("stale")]),
        lambda session: store_checkpoint(session, stale, 10, "checkpoints/step_10", final=True),
    ]
    for write in writes:
        with pytest.raises(LeaseLostError), transaction() as session:
            write(session)
    for table in ("step_metrics", "samples", "checkpoints", "tails"):
        assert rows(f"SELECT count(*) FROM {table}") == [(0,)]
    assert rows("SELECT count(*) FROM events WHERE type = 'phase'") == [(0,)]


def test_a_step_that_was_run_again_counts_as_the_latest_attempt_measured_it(running: Running) -> None:
    first = running()
    with transaction() as session:
        store_metrics(session, first, [line(n, reward=0.1 * n, old=1.0) for n in (1, 2, 3)], Span("metrics.jsonl", 0, 90))
        requeue(session, first, WORKER_LOST, crashed=True)
    second = claimed(first.job_id)
    with transaction() as session:
        lines = [line(2, reward=0.7), line(3, reward=0.8), line(3, reward=0.9)]  # of two lines of one step the later counts
        store_metrics(session, second, lines, Span("metrics.jsonl", 90, 180))
    with transaction() as session:
        curve = curves.points(session, first.job_id, None, 0)
        some = curves.points(session, first.job_id, ["reward", "absent"], 2).series
    series = curve.series
    assert curve.names == ["old", "reward"]
    assert (series["reward"].step, series["reward"].value) == ([1, 2, 3], [0.1, 0.7, 0.9])
    assert (series["old"].step, series["old"].value) == ([1], [1.0])
    assert some["reward"].step == [2, 3]
    assert some["absent"].step == []
    assert rows("SELECT count(*) FROM step_metrics") == [(5,)]


def test_what_was_done_after_the_checkpoint_that_a_job_went_back_to_does_not_count(running: Running) -> None:
    """Steps 1 to 4, a kill, on from the checkpoint of step 2; the second worker first reads what the first had left."""
    first = running()
    with transaction() as session:
        store_metrics(session, first, [line(n, reward=0.1 * n) for n in (1, 2, 3)], Span("metrics.jsonl", 0, 90))
        for step in (1, 2, 3):
            store_samples(session, first, step, [sample(f"first {step}")])
        requeue(session, first, WORKER_LOST, crashed=True)
    second = claimed(first.job_id)

    def seen() -> tuple[list[int], str, int]:
        with transaction() as session:
            series = curves.points(session, first.job_id, ["reward"], 0).series
            [newest] = record_read.samples(session, first.job_id, None)
            assert record_read.samples(session, first.job_id, 9) == []
            return series["reward"].step, newest.completions[0]["text"], find_job(session, first.job_id).step

    with transaction() as session:
        store_metrics(session, second, [line(4, reward=0.4)], Span("metrics.jsonl", 90, 120))
        store_samples(session, second, 4, [sample("first 4")])
    assert seen() == ([1, 2, 3, 4], "first 4", 4)
    with transaction() as session:
        store_resumed(session, second, 2, 1760000005.0)
    assert seen() == ([1, 2], "first 2", 2)
    with transaction() as session:  # the files are read one after the other: steps may come before the event
        store_metrics(session, second, [{**line(3, reward=0.9), "time": 1760000006.0}], Span("metrics.jsonl", 120, 150))
        store_samples(session, second, 3, [sample("second 3")])
        store_resumed(session, second, 2, 1760000005.0)
    assert seen() == ([1, 2, 3], "second 3", 3)


def test_samples_of_a_step_are_replaced_as_a_whole(running: Running) -> None:
    claim = running()
    with transaction() as session:
        store_metrics(session, claim, [line(1, reward=1.0), line(2, reward=1.0)], Span("metrics.jsonl", 0, 10))
        store_samples(session, claim, 1, [sample("a"), sample("b")])
        store_samples(session, claim, 1, [sample("c")])
        store_samples(session, claim, 2, [sample("d")])
    with transaction() as session:
        assert [each.completions[0]["text"] for each in record_read.samples(session, claim.job_id, 1)] == ["c"]
        assert [each.completions[0]["text"] for each in record_read.samples(session, claim.job_id, None)] == ["d"]


def test_what_a_policy_may_write_can_be_kept(running: Running) -> None:
    claim = running()
    text = json.loads('"a\\u0000b\\ud800c\\ud83d\\ude00"')
    with transaction() as session:
        store_samples(session, claim, 1, [sample(text)])
        store_events(session, claim, [event(text)], Span("events.jsonl", 0, 10))
        store_metrics(session, claim, [line(1, reward=float("nan"), loss=float("inf"))], Span("metrics.jsonl", 0, 10))
    expected = "a\ufffdb\ufffdc\U0001f600"
    assert rows("SELECT completions -> 0 ->> 'text' FROM samples") == [(expected,)]
    assert rows("SELECT message FROM events WHERE type = 'phase'") == [(expected,)]
    assert rows("SELECT metrics FROM step_metrics") == [({"reward": None, "loss": None},)]


def test_storable_reaches_keys_and_depths() -> None:
    assert storable({"a\0": [{"b": ("\0",)[0]}], "n": 2**70, "t": True}) == {
        "a\ufffd": [{"b": "\ufffd"}],
        "n": 2**70,
        "t": True,
    }


@pytest.mark.parametrize(("every", "scored"), [(None, [10]), (1, [5, 10]), (2, [10])])
def test_checkpoints_are_scored_as_the_spec_says(running: Running, spec: Any, every: int | None, scored: list[int]) -> None:
    evaluation = {"benchmarks": [spec["dataset"]["path"]], "every": every, "base": False}
    claim = running(evaluation=evaluation)
    for _ in range(2):  # the second time as a resumed run that writes its checkpoints again
        for step in (5, 10):
            with transaction() as session:
                store_checkpoint(session, claim, step, f"checkpoints/step_{step}", final=step == 10)
    assert rows("SELECT step, final FROM checkpoints ORDER BY step") == [(5, False), (10, True)]
    found = rows("SELECT step, spec -> 'model' ->> 'path' FROM evaluations ORDER BY step")
    assert found == [(step, str(settings().run_folder(claim.job_id) / "checkpoints" / f"step_{step}")) for step in scored]
    assert rows("SELECT count(*) FROM outbox WHERE task = 'worker.tasks.run_evaluation'") == [(len(scored),)]


def test_a_job_without_benchmarks_scores_nothing(running: Running) -> None:
    with transaction() as session:
        assert ingest.store_checkpoint(session, running(), 10, "checkpoints/step_10", final=True) is None
