"""Curves: what buckets say is what the points say, through every size of segment, going back and doing again."""

from collections.abc import Callable
from math import sin
from random import Random
from typing import Any

import httpx
import pytest

from api import curves
from api.curves import Axis
from api.database import transaction
from api.ingest import Span, store_metrics, store_resumed
from api.models import Json
from api.outlines import outlines
from api.reason import WORKER_LOST
from api.record import Claim, requeue
from api.record_read import find_job
from api.rollup import SIZES, Piece, cover
from tests.api.conftest import claimed, rows

Running = Callable[..., Claim]
START = 1_760_000_000.0


def line(step: int, value: float | None, seconds: float | None = None, **more: Any) -> Json:
    time = START + (step if seconds is None else seconds)
    return {"step": step, "time": time, "metrics": {"reward": value, "num_tokens": 10.0 * step, **more}}


class Writer:
    """Stores lines as a worker does: each call joins on to the bytes of the last."""

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self._bytes = 0

    def write(self, lines: list[Json]) -> None:
        with transaction() as session:
            store_metrics(session, self.claim, lines, Span("metrics.jsonl", self._bytes, self._bytes + 1))
        self._bytes += 1

    def write_each(self, lines: list[Json], chunk: int) -> None:
        for start in range(0, len(lines), chunk):
            self.write(lines[start : start + chunk])

    def resume(self, step: int, time: float) -> None:
        """Another worker goes on from `step`."""
        with transaction() as session:
            requeue(session, self.claim, WORKER_LOST, crashed=False)
        self.claim = claimed(self.claim.job_id)
        with transaction() as session:
            store_resumed(session, self.claim, step, time)


def bucketed(claim: Claim, limit: int, axis: Axis = Axis.STEP, low: float | None = None, high: float | None = None) -> Any:
    with transaction() as session:
        return curves.buckets(session, claim.job_id, None, axis, low, high, limit)


def plain(claim: Claim) -> dict[str, dict[int, float | None]]:
    """name -> step -> value, by the form that has every point."""
    with transaction() as session:
        series = curves.points(session, claim.job_id, None, 0).series
    return {name: dict(zip(curve.step, curve.value, strict=True)) for name, curve in series.items()}


def assert_agrees(claim: Claim, limit: int, first: int, last: int) -> None:
    """Each bucket of each curve is what its points give."""
    view = bucketed(claim, limit, low=first, high=last)
    points = plain(claim)
    for name, curve in view.series.items():
        inside = {step: value for step, value in points[name].items() if first <= step <= last}
        groups: dict[int, list[int]] = {}
        for step in inside:
            groups.setdefault(step // view.bucket_steps, []).append(step)
        assert len(groups) <= limit
        assert curve.step == [steps[-1] for steps in groups.values()]
        assert curve.last == [inside[step] for step in curve.step]
        finite = [[value for step in steps if (value := inside[step]) is not None] for steps in groups.values()]
        assert curve.n == [len(values) for values in finite]
        assert curve.not_finite == [len(steps) - len(values) for steps, values in zip(groups.values(), finite, strict=True)]
        assert curve.min == [min(values, default=None) for values in finite]
        assert curve.max == [max(values, default=None) for values in finite]
        assert curve.mean == [pytest.approx(sum(values) / len(values)) if values else None for values in finite]


def assert_outlined(claims: list[Claim], limit: int) -> None:
    """What is read of many jobs at once is what is read of each alone."""
    with transaction() as session:
        jobs = [find_job(session, claim.job_id) for claim in claims]
        found = outlines(session, jobs, ["reward", "rare", "absent"], limit)
        alone = {
            job.id: curves.buckets(session, job.id, ["reward", "rare"], Axis.STEP, None, None, limit).series for job in jobs
        }
    for job_id, outlined in found.items():
        for name, curve in alone[job_id].items():
            known = [(step, mean) for step, mean in zip(curve.step, curve.mean or [], strict=True) if mean is not None]
            assert [step for step, _ in outlined.get(name, [])] == [step for step, _ in known]
            assert [mean for _, mean in outlined.get(name, [])] == pytest.approx([mean for _, mean in known])
        assert "absent" not in outlined


def test_a_range_is_covered_once_by_the_largest_segments_that_fit() -> None:
    random = Random(0)
    for _ in range(200):
        first = random.randrange(9000)
        end = first + random.randrange(9000)
        largest = random.choice((1, *SIZES))
        pieces = list(cover(first, end, largest))
        assert [step for piece in pieces for step in range(piece.first, piece.end)] == list(range(first, end))
        assert all(piece.first % piece.size == piece.end % piece.size == 0 and piece.size <= largest for piece in pieces)
    assert list(cover(0, 4096, 4096)) == [Piece(4096, 0, 4096)]


def test_buckets_say_what_the_points_say(running: Running) -> None:
    writer = Writer(running())
    lines = [
        line(step, None if step % 50 == 7 else sin(step), **({"rare": step} if step % 9 == 0 else {}))
        for step in range(1, 1301)
    ]
    writer.write_each(lines, 190)
    assert set(rows("SELECT size, count(*) FROM metric_segments WHERE name = 'reward' GROUP BY 1")) == {
        (8, 162),
        (64, 20),
        (512, 2),
    }
    for limit, first, last in (
        (1, 0, 1300),
        (2, 1, 1300),
        (20, 3, 1290),
        (150, 0, 1300),
        (500, 70, 1000),
        (2000, 0, 1300),
        (3, 5, 5),
    ):
        assert_agrees(writer.claim, limit, first, last)


def test_many_jobs_are_outlined_as_each_alone(running: Running) -> None:
    claims = []
    for steps in (0, 1, 61, 700, 5000):
        writer = Writer(running())
        lines = [line(n, None if n % 50 < 4 else sin(n), **({"rare": n} if n % 9 == 0 else {})) for n in range(1, steps + 1)]
        writer.write_each(lines, 900)
        claims.append(writer.claim)
    again = Writer(running())
    again.write_each([line(n, 1.0) for n in range(1, 101)], 100)
    again.resume(70, START + 200)
    again.write([line(n, 2.0, 200 + n) for n in range(71, 90)])
    for limit in (1, 60, 150):
        assert_outlined([*claims, again.claim], limit)


def test_a_spike_of_one_step_is_in_its_bucket(running: Running) -> None:
    writer = Writer(running())
    writer.write_each([line(step, 1e6 if step == 777 else 0.5) for step in range(1, 1001)], 250)
    curve = bucketed(writer.claim, 10).series["reward"]
    assert len(curve.max) <= 10
    assert max(curve.max) == 1e6
    assert max(curve.last) == 0.5


def test_a_value_of_any_size_is_recorded_and_drawn(running: Running) -> None:
    writer = Writer(running())
    writer.write([line(step, 1.7e308 if step % 2 else -1.7e308) for step in range(1, 101)])
    writer.write([line(step, 1.7e308) for step in range(101, 601)])
    curve = bucketed(writer.claim, 10).series["reward"]
    assert (min(curve.min), max(curve.max), curve.last[-1]) == (-1.7e308, 1.7e308, 1.7e308)
    assert curve.mean[-1] == 1e300
    with transaction() as session:
        found = outlines(session, [find_job(session, writer.claim.job_id)], ["reward"], 10)
    assert found[writer.claim.job_id]["reward"][-1] == (600, 1e300)


def test_going_back_and_doing_again_leaves_no_trace_in_the_buckets(running: Running) -> None:
    writer = Writer(running())
    writer.write_each([line(step, 1.0) for step in range(1, 101)], 30)
    writer.resume(70, START + 200)
    assert_agrees(writer.claim, 5, 0, 70)
    assert bucketed(writer.claim, 5).next_step == 71
    writer.write([line(step, 2.0, 200 + step) for step in range(71, 76)])
    assert_agrees(writer.claim, 5, 0, 75)
    writer.write([line(step, 3.0, 300 + step) for step in range(60, 140)])  # back before the event that tells of it
    assert_agrees(writer.claim, 7, 0, 139)
    assert {value for step, value in plain(writer.claim)["reward"].items() if step >= 60} == {3.0}
    assert rows("SELECT max(start + size) FROM metric_segments") == [(136,)]


def test_a_range_in_time_or_tokens_is_the_steps_that_lie_in_it(running: Running) -> None:
    writer = Writer(running())
    writer.write_each([line(step, float(step), seconds=step**2) for step in range(1, 41)], 40)

    def steps(axis: Axis, low: float | None, high: float | None) -> tuple[list[int], list[float]]:
        curve = bucketed(writer.claim, 100, axis, low, high).series["reward"]
        return curve.step, curve.x

    assert steps(Axis.TIME, START + 100, START + 144) == ([10, 11, 12], [START + 100, START + 121, START + 144])
    assert steps(Axis.TIME, START + 100.5, START + 143.5)[0] == [11]
    assert steps(Axis.TOKENS, 385, None) == ([39, 40], [390.0, 400.0])
    assert steps(Axis.TOKENS, None, 19)[0] == [1]
    assert bucketed(writer.claim, 100, Axis.TIME, START + 5000).series == {}
    assert bucketed(writer.claim, 100, low=38.5, high=1e300).series["reward"].step == [39, 40]


def test_buckets_over_http(client: httpx.Client, running: Running) -> None:
    writer = Writer(running())
    writer.write([line(step, step / 4) for step in range(1, 17)])
    path = f"/v1/jobs/{writer.claim.job_id}/metrics"
    answer = client.get(path, params={"names": "reward,absent", "max_points": 2, "from": 1, "to": 15}).json()
    assert (answer["object"], answer["x"], answer["bucket_steps"], answer["next_step"]) == ("metrics", "step", 8, 16)
    assert answer["names"] == ["num_tokens", "reward"]
    assert answer["series"]["reward"] == {
        "step": [7, 15],
        "x": [7, 15],
        "last": [1.75, 3.75],
        "min": [0.25, 2.0],
        "max": [1.75, 3.75],
        "mean": [1.0, 2.875],
        "n": [7, 8],
        "not_finite": [0, 0],
    }
    assert answer["series"]["absent"]["step"] == []
    for bad, param in (
        ({"max_points": 0}, "max_points"),
        ({"x": "wall"}, "x"),
        ({"from": "nan"}, "from"),
        ({"to": "soon"}, "to"),
    ):
        refused = client.get(path, params=bad)
        assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)


def test_a_job_without_steps_has_no_curves(client: httpx.Client, running: Running) -> None:
    answer = client.get(
        f"/v1/jobs/{running().job_id}/metrics", params={"max_points": 10, "names": "reward", "x": "tokens"}
    ).json()
    assert (answer["names"], answer["series"]["reward"]["x"]) == ([], [])


def test_fewer_columns_and_digits_of_the_same_buckets(client: httpx.Client, running: Running) -> None:
    claim = running(steps=40)
    Writer(claim).write([line(step, step / 7) for step in range(1, 31)])
    url = f"/v1/jobs/{claim.job_id}/metrics"
    asked: dict[str, Any] = {"names": "reward", "max_points": 4}
    whole = client.get(url, params=asked).json()["series"]["reward"]
    brief = client.get(url, params={**asked, "columns": ["mean", "max"], "digits": 3}).json()["series"]["reward"]
    assert set(brief) == {"step", "mean", "max"}
    assert brief["step"] == whole["step"]
    assert brief["mean"] == [float(f"{value:.3g}") for value in whole["mean"]]
    assert brief["max"] == [float(f"{value:.3g}") for value in whole["max"]]
    assert brief["max"] != whole["max"]
