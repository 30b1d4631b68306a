"""What a run has left, over HTTP: logs, samples by filter, checkpoints with hash and archive; plans and conditional GET too."""

import hashlib
import io
import json
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api import checkpoint_files
from api.database import alone, transaction
from api.ingest import Span, store_checkpoint, store_events, store_metrics, store_samples
from api.models import Json
from api.record import Claim
from api.settings import settings
from tests.api.conftest import rows

Running = Callable[..., Claim]


@pytest.fixture
def logged(running: Running) -> tuple[str, Path]:
    """A job, and the trainer's log of it."""
    job_id = running().job_id
    file = settings().run_folder(job_id) / "trainer.log"
    file.parent.mkdir(parents=True)
    return job_id, file


def lines(client: httpx.Client, job_id: str, **params: Any) -> tuple[list[str], int | None]:
    answer = client.get(f"/v1/jobs/{job_id}/logs", params=params).raise_for_status().json()
    return [line["text"] for line in answer["lines"]], answer["before"]


def test_the_end_of_a_log_and_what_came_before(client: httpx.Client, logged: tuple[str, Path]) -> None:
    job_id, file = logged
    assert lines(client, job_id) == ([], None)
    written = [f"line {n} {'x' * (n % 7 * 4000)}" for n in range(60)]  # several blocks, lines across their borders
    file.write_text("\n".join(written) + "\n")
    read: list[str] = []
    before: int | None = None
    while len(read) < len(written):
        page, before = lines(client, job_id, tail=7, **({} if before is None else {"before": before}))
        read = page + read
    assert (read, before) == (written, None)
    with file.open("ab") as log:
        log.write(b"torn \xff")
    assert lines(client, job_id, tail=2)[0] == [written[-1], "torn \ufffd"]


def test_a_log_is_searched_without_case(client: httpx.Client, logged: tuple[str, Path]) -> None:
    job_id, file = logged
    file.write_text("".join(f"step {n}{' OutOfMemory' if n % 10 == 3 else ''}\n" for n in range(100)))
    found, before = lines(client, job_id, search="outofmemory", tail=3)
    assert found == ["step 73 OutOfMemory", "step 83 OutOfMemory", "step 93 OutOfMemory"]
    assert lines(client, job_id, search="outofmemory", before=before)[0] == [f"step {n} OutOfMemory" for n in range(3, 73, 10)]
    assert lines(client, job_id, search="absent") == ([], None)


def test_logs_by_component(client: httpx.Client, running: Running, spec: Json) -> None:
    job_id = running(evaluation={"benchmarks": [spec["dataset"]["path"]]}).job_id
    [(evaluation,)] = rows("SELECT id FROM evaluations")
    folder = settings().evaluation_folder(evaluation)
    folder.mkdir(parents=True)
    (folder / "evaluator.log").write_text("scored\n")
    answer = client.get(f"/v1/jobs/{job_id}/logs", params={"component": evaluation}).json()
    assert answer["components"] == ["trainer", evaluation]
    assert [line["text"] for line in answer["lines"]] == ["scored"]
    refused = client.get(f"/v1/jobs/{job_id}/logs", params={"component": "../../etc/passwd"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "component")


def completion(text: str, reward: float, math: float | None, reason: str) -> Json:
    by_grader = {} if math is None else {"math": math}
    return {"text": text, "tokens": 1, "finish_reason": reason, "reward": reward, "by_grader": by_grader, "advantage": 0.0}


def test_samples_by_reward_grader_and_truncation(client: httpx.Client, running: Running) -> None:
    claim = running()
    groups = [
        [completion("a", 0.0, 0.0, "length"), completion("b", 1.0, 1.0, "stop")],
        [completion("c", 0.5, None, "stop"), completion("d", 0.0, 0.0, "stop")],
    ]
    with transaction() as session:
        store_metrics(session, claim, [{"step": 1, "time": 1.0, "metrics": {}}], Span("metrics.jsonl", 0, 1))
        prompts = [{"problem_id": str(n), "prompt": "?", "answer": "2", "completions": group} for n, group in enumerate(groups)]
        store_samples(session, claim, 1, prompts)

    def texts(**params: Any) -> list[list[tuple[int, str]]]:
        answer = client.get(f"/v1/jobs/{claim.job_id}/samples", params=params).raise_for_status().json()
        return [[(each["index"], each["text"]) for each in sample["completions"]] for sample in answer["data"]]

    assert texts() == [[(0, "a"), (1, "b")], [(0, "c"), (1, "d")]]
    assert texts(min_reward=0.5) == [[(1, "b")], [(0, "c")]]
    assert texts(max_reward=0.2, truncated=False) == [[(1, "d")]]
    assert texts(truncated=True) == [[(0, "a")]]
    assert texts(grader="math", min_reward=0.5) == [[(1, "b")]]
    assert texts(grader="math") == [[(0, "a"), (1, "b")], [(1, "d")]]
    assert texts(grader="absent") == []


@pytest.fixture
def saved(running: Running) -> tuple[str, Path]:
    """A job with a checkpoint of step 5 on disk and in the record."""
    claim = running()
    folder = settings().run_folder(claim.job_id) / "checkpoints" / "step_5"
    (folder / "trainer_state").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 9000)
    (folder / "trainer_state" / "learner.pt").write_bytes(b"state")
    (folder / "COMPLETE").touch()
    with transaction() as session:
        store_checkpoint(session, claim, 5, "checkpoints/step_5", final=False)
    return claim.job_id, folder


def test_a_checkpoint_is_hashed_in_the_background(client: httpx.Client, saved: tuple[str, Path]) -> None:
    job_id, folder = saved
    path = f"/v1/jobs/{job_id}/checkpoints"
    [listed] = client.get(path).json()["data"]
    assert (listed["bytes"], listed["sha256"]) == (None, None)
    assert client.get(f"{path}/5").json()["files"] is None
    with alone(checkpoint_files.HASHING_LOCK) as held:
        assert (held, checkpoint_files.hash_new()) == (True, 0)
    assert (checkpoint_files.hash_new(), checkpoint_files.hash_new()) == (1, 0)
    [listed] = client.get(path).json()["data"]
    assert listed["bytes"] == 256 * 9000 + 2 + 5
    shell = "find . -type f | LC_ALL=C sort | xargs sha256sum | sha256sum"
    said = subprocess.run(shell, shell=True, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert listed["sha256"] == said.split()[0]
    files = client.get(f"{path}/5").json()["files"]
    assert [file["path"] for file in files] == ["COMPLETE", "config.json", "model.safetensors", "trainer_state/learner.pt"]
    assert files[1] == {"path": "config.json", "bytes": 2, "sha256": hashlib.sha256(b"{}").hexdigest()}


def test_a_checkpoint_is_downloaded_as_an_archive(client: httpx.Client, saved: tuple[str, Path]) -> None:
    job_id, folder = saved
    path = f"/v1/jobs/{job_id}/checkpoints/5/archive"
    answer = client.get(path)
    assert answer.headers["content-type"] == "application/x-tar"
    assert f"{job_id}-step_5.tar" in answer.headers["content-disposition"]
    with tarfile.open(fileobj=io.BytesIO(answer.content)) as tar:
        assert tar.getnames() == ["step_5/COMPLETE", "step_5/config.json", "step_5/model.safetensors"]
        weights = tar.extractfile("step_5/model.safetensors")
        assert weights is not None
        assert weights.read() == (folder / "model.safetensors").read_bytes()
    with tarfile.open(fileobj=io.BytesIO(client.get(path, params={"state": True}).content)) as tar:
        assert tar.getnames()[-1] == "step_5/trainer_state/learner.pt"
    (folder / "COMPLETE").unlink()
    gone = client.get(path)
    assert (gone.status_code, gone.json()["error"]["code"]) == (409, "checkpoint_removed")
    assert client.get(f"/v1/jobs/{job_id}/checkpoints/6/archive").status_code == 404


def test_a_plan_tells_what_a_job_would_be_and_makes_none(client: httpx.Client, running: Running, spec: Json) -> None:
    model = Path(spec["model"]["path"])
    (model / "config.json").write_text(json.dumps({"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}))
    header = json.dumps({"__metadata__": {}, "w": {"dtype": "F32", "shape": [100, 64], "data_offsets": [0, 25600]}}).encode()
    (model / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    spec["resources"] = {"device": "cpu", "micro_batch_tokens": 1000}
    made = client.post("/v1/jobs/plan", json=spec).raise_for_status().json()
    assert (made["object"], made["steps"], made["completions"], made["eta_seconds"]) == ("plan", 10, 80, None)
    assert made["fit"]["parameters"] == 6400
    weights = 6400 * 4
    assert made["fit"]["bytes"] == {
        "weights": weights,
        "gradients": weights,
        "optimizer": 2 * weights,
        "reference_model": 0,
        "activations": 1000 * (10 * 64 + 3 * 128) * 2 * 4,
        "engine": weights + (256 << 20),
    }
    assert made["fit"]["bytes_total"] == sum(made["fit"]["bytes"].values())
    assert (made["fit"]["device"], made["fit"]["fits"]) == ("cpu", True)
    two = {**spec, "resources": {**spec["resources"], "learners": 2}, "kl": {"type": "reward", "coefficient": 0.1}}
    shared = client.post("/v1/jobs/plan", json=two).raise_for_status().json()["fit"]["bytes"]
    assert shared == {
        **{name: 2 * size for name, size in made["fit"]["bytes"].items()},
        "reference_model": weights,
        "engine": made["fit"]["bytes"]["engine"],
    }
    two["rollout"] = {**spec.get("rollout", {}), "engine": "transformers"}
    shared = client.post("/v1/jobs/plan", json=two).raise_for_status().json()["fit"]["bytes"]
    assert shared["engine"] == 2 * weights, "each learner samples"
    assert rows("SELECT count(*) FROM jobs") == [(0,)]
    claim = running(resources=spec["resources"])
    with transaction() as session:
        steps = [{"step": n, "time": float(n), "metrics": {"step_time": 2.0 * n}} for n in (1, 2, 3)]
        store_metrics(session, claim, steps, Span("metrics.jsonl", 0, 1))
    assert client.post("/v1/jobs/plan", json={**spec, "steps": 50}).json()["eta_seconds"] == 4.0 * 50
    limited = {**spec, "max_drift": 0.02}  # its steps may cost less
    assert client.post("/v1/jobs/plan", json=limited).json()["eta_seconds"] is None
    assert client.post("/v1/jobs/plan", json=two).json()["eta_seconds"] is None
    other = {**spec, "rollout": {**spec["rollout"], "group_size": 4}}
    assert client.post("/v1/jobs/plan", json=other).json()["eta_seconds"] is None
    (model / "model.safetensors").write_bytes(b"no tensors")
    broken = client.post("/v1/jobs/plan", json=spec)
    assert (broken.status_code, broken.json()["error"]["param"]) == (422, "model.path")
    refused = client.post("/v1/jobs/plan", json={**spec, "steps": 0})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "steps")


def test_what_has_not_changed_is_not_sent_again(client: httpx.Client, new_job: Callable[..., str]) -> None:
    path = f"/v1/jobs/{new_job()}"
    first = client.get(path)
    tag = first.headers["etag"]
    for known in (tag, f'"other", {tag}', "*"):
        again = client.get(path, headers={"if-none-match": known})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        assert again.headers["x-request-id"] != first.headers["x-request-id"]
    client.post(f"{path}/cancel")
    changed = client.get(path, headers={"if-none-match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "cancelled")
    assert changed.headers["etag"] != tag
    missing = client.get("/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa", headers={"if-none-match": "*"})
    assert (missing.status_code, "etag" in missing.headers) == (404, False)


def test_events_newest_first_and_by_level(client: httpx.Client, running: Running) -> None:
    claim = running()
    lines: list[Json] = [
        {"time": 1.76e9, "step": n, "level": "warn" if n % 3 == 0 else "info", "type": "told", "message": str(n), "data": {}}
        for n in range(9)
    ]
    with transaction() as session:
        store_events(session, claim, lines, Span("events.jsonl", 0, 1))

    def told(**params: Any) -> tuple[list[str], int]:
        page = client.get(f"/v1/jobs/{claim.job_id}/events", params={"limit": 2, **params}).raise_for_status().json()
        return [event["message"] for event in page["data"]], page["data"][-1]["id"]

    newest, last = told(order="desc")
    assert newest == ["8", "7"]
    assert told(order="desc", after=last)[0] == ["6", "5"]
    assert told(order="desc", level="warn")[0] == ["6", "3"]
    assert told(level="warn")[0] == ["0", "3"]
