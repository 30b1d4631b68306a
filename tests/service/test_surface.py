"""A job of OpenAI's client, trained by a real worker and watched by a stream from its first event to its end."""

import json
from typing import Any

import httpx
import pytest
from openai import DefaultHttpxClient, OpenAI

from api.settings import Settings
from tests.conftest import ApiServer
from tests.service.conftest import PATIENCE, Spec, StartWorker, curves, reproducible, wait_for

GRADER = {"type": "regex", "name": "digits", "pattern": "[0-9]"}


def lines(spec: Spec) -> bytes:
    with open(spec["dataset"]["path"], encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    asked = [{"messages": [{"role": "user", "content": row["problem"]}], "answer": row["answer"]} for row in rows]
    return "".join(json.dumps(row) + "\n" for row in asked[:12]).encode()


@pytest.mark.slow
def test_a_job_of_openais_client_is_trained_and_watched(
    api: ApiServer, http: httpx.Client, start_worker: StartWorker, spec: Spec, record: Settings
) -> None:
    client = OpenAI(base_url=f"{api.url}/v1", api_key="none", http_client=DefaultHttpxClient(trust_env=False, timeout=PATIENCE))
    file = client.files.create(file=("train.jsonl", lines(spec)), purpose="fine-tune")
    parts = {key: spec[key] for key in ("rollout", "optimizer", "checkpoints", "resources")}
    reinforcement: Any = {"grader": GRADER, "hyperparameters": {"batch_size": 2, "n_epochs": 1}}
    job = client.fine_tuning.jobs.create(
        model=spec["model"]["path"],
        training_file=file.id,
        seed=7,
        method={"type": "reinforcement", "reinforcement": reinforcement},
        extra_body={"x_spec": parts},
    )
    steps: dict[int, dict[str, float]] = {}
    statuses = []
    log = ""
    with http.stream("GET", f"/v1/jobs/{job.id}/stream", timeout=PATIENCE) as stream:
        start_worker()
        kind = ""
        for line in stream.iter_lines():
            if line.startswith("event: "):
                kind = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                if kind == "metrics":
                    assert data["step"] not in steps
                    steps[data["step"]] = reproducible(data["metrics"])
                elif kind == "status" and data["status"] not in statuses:
                    statuses.append(data["status"])
                elif kind == "log":
                    log += data["text"]
            if "succeeded" in statuses and len(steps) == 6:
                break
    wait_for(http, job.id, "succeeded")
    folder = record.run_folder(job.id)
    assert statuses == ["queued", "running", "succeeded"]
    assert steps == curves(folder)
    assert (folder / "trainer.log").read_bytes().decode().startswith(log)
    done = client.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.fine_tuned_model) == ("succeeded", f"ft:base::{job.id}")
    assert [each.step_number for each in client.fine_tuning.jobs.checkpoints.list(job.id)] == [6, 4, 2]
    archive = http.get(f"/v1/jobs/{job.id}/checkpoints/6/archive").content
    assert (folder / "checkpoints/step_6/model.safetensors").read_bytes() in archive
