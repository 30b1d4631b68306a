"""Warnings: each rule on series that should and should not raise it, the runs of the regimes, and over HTTP."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.database import transaction
from api.ingest import Span, store_events, store_metrics
from api.models import Json
from api.record import Claim
from api.warnings import FIRST, RECENT, History, Validated, warnings_of

REGIMES = Path(__file__).parents[2] / "benchmarks" / "results" / "regimes.jsonl"


def history(curves: Mapping[str, Sequence[float]], **more: Any) -> History:
    """All steps of some curves, from step 1 on."""
    step = max(map(len, curves.values()))
    first = {name: values[:FIRST] for name, values in curves.items()}
    return History(step, first, {name: values[-RECENT:] for name, values in curves.items()}, **more)


def codes(curves: Mapping[str, Sequence[float]], **more: Any) -> set[str]:
    return {warned.code for warned in warnings_of(history(curves, **more))}


def turn(before: float, after: float, steps: int = 6) -> list[float]:
    """Thirty steps at one value, then some at another."""
    return [before] * 30 + [after] * steps


@pytest.mark.parametrize(
    ("code", "name", "sound", "unsound"),
    [
        ("no_signal", "frac_reward_zero_std", turn(0.5, 0.94), turn(0.5, 1.0)),
        ("length_jumps", "completions/mean_length", turn(200, 390), turn(200, 410)),
        ("length_jumps", "completions/mean_length", turn(200, 110), turn(200, 90)),
        ("length_jumps", "completions/mean_length", [200 + 7 * n for n in range(60)], [200 + 10 * n for n in range(60)]),
        ("truncation_jumps", "completions/clipped_ratio", turn(0.05, 0.19), turn(0.05, 0.21)),
        ("truncation_jumps", "completions/clipped_ratio", [0.3] * 5, [0.31] * 5),
        ("policy_drifts", "ratio/log_abs_mean", turn(0.03, 0.06), turn(0.03, 0.08)),
        ("kl_grows", "kl", turn(0.06, 0.4), turn(0.4, 0.8)),
        ("sampler_differs", "sampling/sampling_logp_difference/mean", turn(0.004, 0.011), turn(0.01, 0.031)),
        ("entropy_collapses", "entropy", turn(0.5, 0.06), turn(0.5, 0.04)),
        ("step_time_doubles", "step_time", turn(2.0, 3.9), turn(2.0, 4.1)),
    ],
)
def test_each_rule_knows_where_it_begins(code: str, name: str, sound: list[float], unsound: list[float]) -> None:
    assert codes({name: sound}) == set()
    assert codes({name: unsound}) == {code}
    assert codes({name: [*unsound[:-5], *sound[-5:-1], unsound[-1]]}) == set(), "one odd step"


def test_ten_steps_without_any_reward() -> None:
    assert codes({"reward": turn(0.5, 0.0, 10)}) == {"reward_at_zero"}
    assert codes({"reward": turn(0.5, 0.0, 9)}) == set()
    assert codes({"reward": [*turn(0.5, 0.0, 9), 0.01]}) == set()


def test_graders_that_fail_are_counted_against_all_completions() -> None:
    assert codes({"grading/failed": [6.0] * 5}, completions=128) == set()
    assert codes({"grading/failed": [7.0] * 5}, completions=128) == {"grading_fails"}


def test_validation_falls_only_while_training_rises() -> None:
    def told(held_out: list[float], training: list[float]) -> set[str]:
        points = [Validated(20 * n, *both) for n, both in enumerate(zip(held_out, training, strict=True), 1)]
        return codes({"reward": [0.5]}, validated=points)

    assert told([0.3, 0.6, 0.5, 0.5], [0.3, 0.6, 0.7, 0.8]) == {"validation_falls"}
    assert told([0.3, 0.6, 0.5, 0.5], [0.3, 0.6, 0.5, 0.4]) == set()
    assert told([0.3, 0.6, 0.5, 0.58], [0.3, 0.6, 0.7, 0.8]) == set()
    assert told([0.6, 0.5], [0.6, 0.8]) == set()


def test_the_runs_of_the_regimes_are_told_apart() -> None:
    """Losses without a zero-gradient region collapse under reuse and are warned of; limited, on policy and stale none is."""
    sizes = {"reuse": {"updates_per_batch": 16}, "stale": {"staleness": 6}}
    for run in map(json.loads, REGIMES.read_text().splitlines()):
        collapses = run["regime"] == "reuse" and run["algorithm"] in ("MHPO", "CISPO", "SAPO")
        sound = run["regime"] in ("on_policy", "stale") or (run["regime"] == "reuse" and "drift limit" in run["algorithm"])
        if not (collapses or sound):
            continue  # some of these do, some do not
        ends = range(5, len(run["curves"]["reward"]) + 1)
        cut = [{name: values[:end] for name, values in run["curves"].items()} for end in ends]
        seen: set[str] = set().union(*(codes(curves, **sizes.get(run["regime"], {})) for curves in cut))
        assert bool(seen & {"policy_drifts", "kl_grows"}) is collapses, (run["regime"], run["algorithm"], run["seed"], seen)


def metrics(step: int) -> Json:
    return {"reward": 0.0, "step_time": 2.0, "kl": 0.1 if step < 20 else 1.5, "entropy": 0.4}


def test_warnings_are_served_and_counted_in_the_list(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim, quiet = running(steps=100), running(steps=100)
    lines = [{"step": step, "time": 1.76e9 + step, "metrics": metrics(step)} for step in range(1, 31)]
    event = {"time": 1.76e9, "step": 7, "level": "warn", "type": "drift", "message": "it drifts", "data": {"hint": "lower lr"}}
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 1))
        store_events(session, claim, [event, {**event, "step": 9, "message": "it drifts on"}], Span("events.jsonl", 0, 1))
    found = client.get(f"/v1/jobs/{claim.job_id}/warnings").raise_for_status().json()["data"]
    assert [(each["code"], each["source"], each["step"]) for each in found] == [
        ("reward_at_zero", "metrics", 30),
        ("kl_grows", "metrics", 30),
        ("drift", "event", 9),
    ]
    assert found[1]["hint"]
    assert (found[2]["message"], found[2]["hint"], found[2]["count"]) == ("it drifts on", "lower lr", 2)
    listed = client.get("/v1/jobs").json()["data"]
    assert {job["id"]: job["warnings"] for job in listed} == {claim.job_id: 3, quiet.job_id: 0}


def test_a_silent_worker_is_a_warning(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running()
    assert client.get(f"/v1/jobs/{claim.job_id}/warnings").json()["data"] == []
    with transaction() as session:
        session.connection().exec_driver_sql("UPDATE jobs SET lease_expires_at = now() + interval '20 seconds'")
    [found] = client.get(f"/v1/jobs/{claim.job_id}/warnings").json()["data"]
    assert found["code"] == "heartbeat_late"
    assert "silent for 40 s; after 60 s" in found["message"]
    assert client.get("/v1/jobs").json()["data"][0]["warnings"] == 1


def test_validations_are_read_with_the_training_reward_of_their_time(
    client: httpx.Client, running: Callable[..., Claim], spec: Json
) -> None:
    claim = running(steps=300, dataset={**spec["dataset"], "validation_size": 4})
    held_out = {50: 0.4, 100: 0.7, 150: 0.5, 200: 0.4}
    lines = [
        {
            "step": step,
            "time": 1.76e9 + step,
            "metrics": {"reward": step / 300} | ({"eval/reward": held_out[step]} if step in held_out else {}),
        }
        for step in range(1, 211)
    ]
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 1))
    [found] = client.get(f"/v1/jobs/{claim.job_id}/warnings").json()["data"]
    assert found["code"] == "validation_falls"
    assert "from 0.7 at step 10" in found["message"]
