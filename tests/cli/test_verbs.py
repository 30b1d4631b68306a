"""The commands about what a run has produced, files, completion and `mhpo doctor`, against a real API."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_events, store_metrics
from api.models import Checkpoint, Status
from api.record import Claim, finish
from api.settings import Settings, settings
from cli import service_checks
from cli.checks import State
from cli.stack import free_port
from tests.api.conftest import claimed
from tests.cli.command import SECONDS, mhpo
from tests.cli.test_watch import piped

pytestmark = pytest.mark.slow  # many short processes


@pytest.fixture
def run(url: str, spec: dict[str, Any], tmp_path: Path) -> Claim:
    """A job that runs: two steps, a phase, a log of three lines and the beginning of a fourth, a checkpoint."""
    (tmp_path / "job.json").write_text(json.dumps(spec))
    claim = claimed(mhpo("submit", str(tmp_path / "job.json"), "--quiet", "--url", url).stdout.strip())
    folder = settings().run_folder(claim.job_id)
    checkpoint = folder / "checkpoints" / "step_2"
    (checkpoint / "trainer_state").mkdir(parents=True)
    for name, text in (
        ("COMPLETE", ""),
        ("config.json", "{}"),
        ("model.safetensors", "w" * 3_000_000),
        ("trainer_state/rng", "7"),
    ):
        (checkpoint / name).write_text(text)
    (folder / "trainer.log").write_text("one\ntwo\nthré\nfo")
    phase = {"time": 1.0, "step": 1, "level": "info", "type": "phase", "message": "rollout", "data": {"phase": "rollout"}}
    lines = [{"step": step, "time": float(step), "metrics": {"reward": step / 4}} for step in (1, 2)]
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 9))
        store_events(session, claim, [phase], Span("events.jsonl", 0, 9))
        store_checkpoint(session, claim, 2, "checkpoints/step_2", final=True, validation_reward=0.5)
    return claim


@pytest.mark.parametrize(
    ("half", "before"),
    [("fo", ["two\n", "thré\n"]), pytest.param("fo" * 40_000, ["thré\n"], id="a half line longer than one look")],
)
def test_a_log_is_followed_to_the_end_of_its_job(url: str, run: Claim, half: str, before: list[str]) -> None:
    log = settings().run_folder(run.job_id) / "trainer.log"
    log.write_text(log.read_text().removesuffix("fo") + half)
    assert mhpo("logs", run.job_id, "-n", "2", "--url", url).stdout == f"thré\n{half}\n"
    following = piped("logs", run.job_id, "--follow", "-n", "2", "--url", url)
    assert following.stdout is not None
    assert [following.stdout.readline() for _ in before] == before
    with log.open("a") as file:
        file.write("ur\nfive\n")
    assert [following.stdout.readline() for _ in range(2)] == [f"{half}ur\n", "five\n"]
    with log.open("a") as file:
        file.write("the end")  # without a newline
    with transaction() as session:
        finish(session, run, Status.SUCCEEDED, None)
    rest, errors = following.communicate(timeout=90)
    assert (rest, errors, following.returncode) == ("the end\n", "", 0)
    assert mhpo("logs", run.job_id, "--component", "grader", "--url", url).returncode == 4

    assert mhpo("warnings", run.job_id, "--url", url).stdout == "nothing deserves a look\n"

    events = mhpo("events", run.job_id, "--follow", "--json", "--url", url).stdout.splitlines()
    assert [json.loads(line)["type"] for line in events] == ["status", "status", "phase", "status"]
    shown = mhpo("events", run.job_id, "--url", url).stdout
    assert "The job is running." in shown
    assert "rollout" not in shown


def test_a_checkpoint_is_downloaded_whole_or_not_at_all(url: str, run: Claim, tmp_path: Path) -> None:
    there = settings().run_folder(run.job_id) / "checkpoints" / "step_2"
    out = tmp_path / "downloaded"
    assert mhpo("checkpoints", "download", run.job_id, "--out", str(out), "--quiet", "--url", url).stdout == f"{out}\n"
    assert {path.name for path in out.iterdir()} == {"COMPLETE", "config.json", "model.safetensors"}
    assert (out / "model.safetensors").read_bytes() == (there / "model.safetensors").read_bytes()
    files = [
        {"path": name, "bytes": 2, "sha256": hashlib.sha256(text).hexdigest()}
        for name, text in (("config.json", b"{}"), ("model.safetensors", b"other"))
    ]
    with transaction() as session:
        session.get_one(Checkpoint, (run.job_id, 2)).contents = files
    wrong = mhpo("checkpoints", "download", run.job_id, "2", "--out", str(tmp_path / "wrong"), "--url", url)
    assert (wrong.returncode, "model.safetensors came with another hash" in wrong.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir() if "wrong" in path.name] == []
    again = mhpo("checkpoints", "download", run.job_id, "--out", str(out), "--url", url)
    assert again.returncode == 4
    assert mhpo("checkpoints", "download", run.job_id, "9", "--url", url).returncode == 6
    [listed] = mhpo("checkpoints", "list", run.job_id, "--json", "--url", url).stdout.splitlines()
    assert (json.loads(listed)["step"], json.loads(listed)["final"]) == (2, True)


def test_files_go_there_and_back(url: str, tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"problem": "1+1=", "answer": "2"}\n')
    made = json.loads(mhpo("files", "upload", str(rows), "--json", "--url", url).stdout)
    assert (made["object"], made["rows"]) == ("file", 1)
    assert mhpo("files", "list", "--json", "--url", url).stdout.count("\n") == 1
    back = tmp_path / "back.jsonl"
    assert mhpo("files", "download", made["id"], "--out", str(back), "--url", url).returncode == 0
    assert back.read_bytes() == rows.read_bytes()
    assert json.loads(mhpo("files", "delete", made["id"], "--json", "--url", url).stdout)["deleted"]
    assert mhpo("files", "delete", made["id"], "--url", url).returncode == 6
    rows.write_text('{"problem": \n')
    refused = mhpo("files", "upload", str(rows), "--url", url)
    assert (refused.returncode, refused.stderr.startswith("mhpo: file: line 1 of rows.jsonl is not JSON")) == (4, True)


def test_a_run_is_shown_by_its_metrics_and_its_facts(url: str, run: Claim, spec: dict[str, Any], tmp_path: Path) -> None:
    [row] = [line for line in mhpo("metrics", run.job_id, "--url", url).stdout.splitlines() if line.startswith("reward")]
    assert row.split() == ["reward", "▁█", "0.5", "0.25", "0.5", "2"]
    every = json.loads(mhpo("metrics", run.job_id, "--names", "reward", "--json", "--url", url).stdout)
    assert every["series"]["reward"] == {"step": [1, 2], "value": [0.25, 0.5]}
    assert json.loads(mhpo("show", run.job_id, "--json", "--url", url).stdout)["spec"]["name"] == "sums"
    planned = mhpo("plan", str(tmp_path / "job.json"), "--url", url).stdout.splitlines()
    assert planned[0] == "valid: 100 steps, 12800 completions"
    assert planned[1] == "time: not known, no comparable run yet"


def test_tab_completes_ids_and_names_and_is_silent_without_a_service(url: str, run: Claim) -> None:
    def tab(*words: str, **environment: str) -> list[str]:
        line = {"COMP_WORDS": " ".join(("mhpo", *words)), "COMP_CWORD": str(len(words))}
        return mhpo(
            seconds=SECONDS, **{"_MHPO_COMPLETE": "complete_bash", "MHPO_URL": url, **line, **environment}
        ).stdout.split()

    assert tab("watch", "job-") == [run.job_id]
    assert tab("plot", run.job_id, "--metric", "rew") == ["reward"]
    assert tab("jobs", "--status", "suc") == ["succeeded"]
    assert tab("wat") == ["watch"]
    assert tab("watch", "job-", MHPO_URL=f"http://127.0.0.1:{free_port('127.0.0.1')}") == []


def test_the_doctor_says_what_is_there_and_what_is_not(record: Settings, url: str, tmp_path: Path) -> None:
    parts = {"MHPO_DATABASE_URL": record.database_url, "MHPO_REDIS_URL": record.redis_url}
    told = mhpo("doctor", "--quick", "--json", "--url", url, "--data-dir", str(tmp_path), seconds=SECONDS, **parts)
    found = {check["part"]: check for check in map(json.loads, told.stdout.splitlines())}
    assert {"python", "packages", "devices", "memory", "data folder", "disk", "roots"} <= found.keys()
    assert [found[part]["state"] for part in ("python", "api", "ready", "key", "postgresql", "redis")] == ["ok"] * 6
    assert (found["workers"]["state"], told.returncode) == ("fail", 1)
    assert "mhpo up" in found["workers"]["fix"]
    assert ", schema " in found["postgresql"]["found"]

    away = mhpo("doctor", "--quick", "--url", f"http://127.0.0.1:{free_port('127.0.0.1')}", "--data-dir", str(tmp_path))
    assert away.returncode == 5
    assert "→ start it with `mhpo up`" in away.stdout

    broken = {"MHPO_DATABASE_URL": "postgresql+psycopg://mhpo:hush@127.0.0.1:1/mhpo", "MHPO_ALLOWED_ROOTS": "/nowhere"}
    told = mhpo("doctor", "--quick", "--json", "--url", url, "--data-dir", str(tmp_path), seconds=SECONDS, **broken)
    found = {check["part"]: check for check in map(json.loads, told.stdout.splitlines())}
    assert [found[part]["state"] for part in ("postgresql", "roots")] == ["fail", "fail"]
    assert "hush" not in told.stdout


@pytest.mark.slow
def test_the_doctor_imports_torch_and_vllm(tmp_path: Path) -> None:
    told = mhpo("doctor", "--json", "--data-dir", str(tmp_path), seconds=240, MHPO_URL="http://127.0.0.1:9")
    found = {check["part"]: check for check in map(json.loads, told.stdout.splitlines())}
    assert found["torch"]["found"].endswith("imports")
    assert found["vllm"]["found"].endswith("imports")


def test_the_doctor_names_a_database_that_is_too_old(record: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.service_checks.OLDEST_POSTGRESQL", (99,))
    [found] = [one for one in service_checks.service(record, "http://127.0.0.1:9") if one.part == "postgresql"]
    assert found.state is State.FAIL
    assert "needs 99 or newer" in found.found
