"""`mhpo watch` on a terminal, and for a program: a job that is recorded step by step meanwhile."""

import json
import os
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.database import transaction
from api.ingest import Span, store_events, store_metrics
from api.models import Json, Status
from api.reason import Fault, Reason
from api.record import Claim, claim_job, finish
from api.settings import Settings
from cli.stack import free_port
from tests.cli.command import MHPO, clean_environment, mhpo
from tests.cli.terminal import Terminal, terminal
from tests.conftest import api_server, wait_until

PATIENCE = 90.0
NOTE = "grader math raised on 3 completions"


def claimed(url: str, spec: Json) -> Claim:
    """A job of 100 steps that a worker has."""
    job_id = httpx.post(f"{url}/v1/jobs", json=spec, trust_env=False, timeout=PATIENCE).raise_for_status().json()["id"]
    with transaction() as session:
        claim = claim_job(session, job_id, "worker-1")
    assert claim is not None
    return claim


def measure(claim: Claim, first: int, last: int) -> None:
    """Steps `first` to `last`, each in a transaction of its own, with all that the dashboard draws."""
    for step in range(first, last + 1):
        measured = {
            "reward": step / 100,
            "reward_std": 0.1,
            "grad_norm": 2.0,
            "grad_norm/on_policy": 1.5,
            "kl/rollout": 1e-4,
            "entropy": 1 / step,
            "completions/mean_length": 30.0,
            "completions/min_length": 10.0,
            "completions/max_length": 50.0,
            "step_time": 2.0,
            "time/rollout": 1.5,
            "time/learner": 0.5,
        }
        held_out = {"eval/reward": 0.25} if step % 10 == 0 else {}
        with transaction() as session:
            line = {"step": step, "time": 1e9 + step, "metrics": {**measured, **held_out}}
            store_metrics(session, claim, [line], Span("metrics.jsonl", step - 1, step))


def warn(claim: Claim) -> None:
    event = {"time": 1.0, "step": 20, "level": "warn", "type": "grader_error", "message": NOTE, "data": {}}
    with transaction() as session:
        store_events(session, claim, [event], Span("events.jsonl", 0, 1))


def step_of(watching: Terminal) -> int:
    found = re.search(r"step (\d+)/100", "\n".join(watching.screen()))
    return int(found[1]) if found else 0


def test_the_dashboard_shows_a_run_live_at_any_size_and_leaves_it_running(url: str, spec: dict[str, Any]) -> None:
    claim = claimed(url, spec)
    measure(claim, 1, 20)
    with terminal("watch", claim.job_id, "--url", url, columns=120, rows=50) as watching:
        wait_until(lambda: watching.on_screen("step 20/100 20%", "about 2 m 40 s left"), PATIENCE)
        assert watching.on_screen("sums", claim.job_id, "running", "worker-1", "The job is running.", "● live")
        assert watching.on_screen(
            "Reward", "0.2", "◆ held out 0.25", "Gradient norm, on-policy scale  1.5", "KL", "Entropy  0.05"
        )
        assert watching.on_screen("Length  30", "Step 2 s", "rollout 75%", "learner 25%")
        curve = "\n".join(watching.screen())
        assert len(re.findall(r"[\u2801-\u28ff]", curve)) > 200
        assert curve.count("◆") == 3  # steps 10 and 20, and the legend
        assert max(map(len, watching.screen())) <= 120

        measure(claim, 21, 22)
        warn(claim)
        wait_until(lambda: watching.on_screen("step 22/100", f"warn step 20: {NOTE}"), PATIENCE)

        watching.resize(60, 18)
        wait_until(lambda: watching.on_screen("Reward") and max(map(len, watching.screen())) <= 60, PATIENCE)
        assert not watching.on_screen("Entropy")  # one panel has room
        watching.resize(60, 8)
        wait_until(lambda: watching.on_screen("reward", "▁", "Ctrl-C leaves"), PATIENCE)

        watching.press_ctrl_c()
        assert watching.process.wait(PATIENCE) == 130
        left = watching.left_behind()
        assert f"{claim.job_id} goes on" in left.replace("\r\n", "")
        assert f"mhpo cancel {claim.job_id}" in left.replace("\r\n", "")
    assert httpx.get(f"{url}/v1/jobs/{claim.job_id}", trust_env=False).json()["status"] == "running"


@pytest.mark.slow
def test_watching_goes_on_behind_a_service_that_was_killed(record: Settings, spec: dict[str, Any], tmp_path: Path) -> None:
    """The terminal says that the service is away and goes on; a program gets each step once; both end with the job.

    A program that has no patience ends with the service.
    """
    port = free_port("127.0.0.1")
    url = f"http://127.0.0.1:{port}"
    asleep = {"MHPO_PORT": str(port), "MHPO_REAPER_SECONDS": "3600"}
    with api_server(tmp_path / "first.log", **asleep) as server:
        claim = claimed(url, spec)
        measure(claim, 1, 3)
        patient = piped("watch", claim.job_id, "--url", url, "--json")
        impatient = piped("watch", claim.job_id, "--url", url, "--patience", "0")
        assert impatient.stdout is not None
        assert impatient.stdout.readline().endswith("The job is queued.\n")
        with terminal("watch", claim.job_id, "--url", url) as watching:
            wait_until(lambda: step_of(watching) == 3, PATIENCE)
            measure(claim, 4, 5)
            wait_until(lambda: step_of(watching) == 5, PATIENCE)
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(PATIENCE)
            wait_until(lambda: watching.on_screen("trying again"), PATIENCE)
            _, errors = impatient.communicate(timeout=PATIENCE)
            assert impatient.returncode == 5
            assert errors.startswith("mhpo: ")
            measure(claim, 6, 8)
            with api_server(tmp_path / "second.log", **asleep):
                wait_until(lambda: watching.on_screen("step 8/100", "● live"), PATIENCE)
                with transaction() as session:
                    reason = Reason("engine", Fault.SYSTEM, "It broke.\nTraceback:\n  line 1")
                    finish(session, claim, Status.FAILED, reason)
                assert watching.process.wait(PATIENCE) == 1
                assert "failed: It broke." in watching.left_behind().replace("\r\n", "")
                told, errors = patient.communicate(timeout=PATIENCE)
    lines = [json.loads(line) for line in told.splitlines()]
    assert [line["step"] for line in lines if line["object"] == "job.step"] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (lines[-1]["object"], lines[-1]["status"], patient.returncode) == ("job", "failed", 1)
    assert "trying again" in errors


def piped(*arguments: str) -> subprocess.Popen[str]:
    """`mhpo` whose output goes to a program."""
    argv = [MHPO, *arguments]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=clean_environment())


def test_colours_stay_out_of_pipes_and_where_they_are_not_wanted(url: str, spec: dict[str, Any]) -> None:
    claim = claimed(url, spec)
    measure(claim, 1, 2)
    assert "\x1b" not in mhpo("metrics", claim.job_id, "--url", url).stdout
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    forced = mhpo("watch", claim.job_id, "--url", url, FORCE_COLOR="1")
    assert (forced.returncode, "\x1b" in forced.stdout) == (0, False)
    assert (quiet := mhpo("watch", claim.job_id, "--quiet", "--url", url)).stdout == ""
    assert quiet.returncode == 0
    with terminal("watch", claim.job_id, "--url", url, NO_COLOR="1") as watching:
        assert watching.process.wait(PATIENCE) == 0
        assert "succeeded" in watching.left_behind()
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", watching.raw())
