"""Jobs over HTTP: created, listed, read, cancelled, and what a run has recorded."""

from collections.abc import Callable

import httpx
import pytest

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_events, store_metrics, store_samples
from api.models import Json, Status, Task
from api.openapi import JOB_EXAMPLE
from api.queue import waiting
from api.reason import Fault, Reason
from api.record import Claim, finish
from api.settings import settings
from tests.api.conftest import claimed
from tests.conftest import wait_until
from trainer.config import JobSpec


def test_a_created_job_is_read_listed_and_published(client: httpx.Client, spec: Json) -> None:
    made = client.post("/v1/jobs", json=spec)
    assert made.status_code == 201
    job = made.json()
    assert made.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["object"], job["status"], job["name"], job["steps"], job["step"]) == ("job", "queued", "sums", 10, 0)
    assert job["spec"] == JobSpec.parse(spec).model_dump(mode="json")
    assert client.get(made.headers["location"]).json() == job
    assert client.get("/v1/jobs").json() == {"object": "list", "data": [{**job, "warnings": 0}], "has_more": False}
    wait_until(lambda: waiting(Task.RUN_JOB) == 1)


def test_jobs_are_paged_newest_first_and_filtered_by_status(client: httpx.Client, new_job: Callable[..., str]) -> None:
    jobs = [new_job() for _ in range(5)][::-1]
    first = client.get("/v1/jobs", params={"limit": 2}).json()
    assert [job["id"] for job in first["data"]] == jobs[:2]
    assert first["has_more"]
    rest = client.get("/v1/jobs", params={"limit": 3, "after": jobs[1]}).json()
    assert [job["id"] for job in rest["data"]] == jobs[2:]
    assert not rest["has_more"]
    claimed(jobs[3])
    running = client.get("/v1/jobs", params={"status": "running"}).json()
    assert [(job["id"], job["worker"]) for job in running["data"]] == [(jobs[3], "worker-1")]
    assert len(client.get("/v1/jobs", params={"status": "queued"}).json()["data"]) == 4


def test_a_queued_job_is_cancelled_and_then_stays_so(client: httpx.Client, spec: Json) -> None:
    job_id = client.post("/v1/jobs", json=spec).json()["id"]
    cancelled = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert cancelled.json()["status_reason"]["fault"] == "user"
    again = client.post(f"/v1/jobs/{job_id}/cancel")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "job_ended")


def test_a_running_job_is_asked_to_stop(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running()
    for _ in range(2):
        asked = client.post(f"/v1/jobs/{claim.job_id}/cancel").json()
        assert (asked["status"], asked["phase"], asked["cancel_requested"]) == ("running", "cancelling", True)


def test_a_job_is_paused_and_resumed(client: httpx.Client, spec: Json) -> None:
    run = f"/v1/jobs/{client.post('/v1/jobs', json=spec).json()['id']}"
    for _ in range(2):
        paused = client.post(f"{run}/pause")
        assert (paused.status_code, paused.json()["status"]) == (200, "paused")
    wait_until(lambda: waiting(Task.RUN_JOB) == 1)
    assert client.post(f"{run}/resume").json()["status"] == "queued"
    wait_until(lambda: waiting(Task.RUN_JOB) == 2)
    again = client.post(f"{run}/resume")
    assert (again.status_code, again.json()["error"]["code"]) == (409, "wrong_status")
    assert "this one is queued" in again.json()["error"]["message"]
    client.post(f"{run}/cancel")
    for verb in ("pause", "resume"):
        ended = client.post(f"{run}/{verb}")
        assert (ended.status_code, ended.json()["error"]["code"]) == (409, "job_ended")


def test_a_running_job_is_asked_to_pause(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running()
    asked = client.post(f"/v1/jobs/{claim.job_id}/pause").json()
    assert (asked["status"], asked["phase"], asked["pause_requested"]) == ("running", "pausing", True)


def test_a_failed_or_cancelled_job_is_retried_as_a_new_one(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running(seed=3)
    early = client.post(f"/v1/jobs/{claim.job_id}/retry")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "wrong_status")
    assert "this one is running" in early.json()["error"]["message"]
    with transaction() as session:
        finish(session, claim, Status.FAILED, Reason("bad_data", Fault.USER, "Row 3."))
    parent = client.get(f"/v1/jobs/{claim.job_id}").json()
    assert "mhpo clone" in parent["status_reason"]["hint"]
    answer = client.post(f"/v1/jobs/{claim.job_id}/retry")
    made = answer.json()
    assert (answer.status_code, answer.headers["location"]) == (201, f"/v1/jobs/{made['id']}")
    assert (made["status"], made["attempt"], made["parent_id"], made["diff"]) == ("queued", 0, claim.job_id, [])
    assert made["spec"] == parent["spec"]
    assert client.get(f"/v1/jobs/{claim.job_id}").json() == parent
    wait_until(lambda: waiting(Task.RUN_JOB) >= 1)
    client.post(f"/v1/jobs/{made['id']}/cancel")
    assert client.post(f"/v1/jobs/{made['id']}/retry").json()["parent_id"] == made["id"]


def test_a_job_is_cloned_with_a_merge_patch_and_tells_what_differs(client: httpx.Client, spec: Json) -> None:
    parent = client.post("/v1/jobs", json={**spec, "algorithm": {"type": "mhpo", "c": 1.25}}).json()
    patch = {"algorithm": {"type": "grpo"}, "optimizer": {"lr": 5e-5}, "name": None}
    made = client.post(f"/v1/jobs/{parent['id']}/clone", json=patch).json()
    assert made["spec"]["algorithm"]["type"] == "grpo"
    assert (made["parent_id"], parent["parent_id"], parent["diff"]) == (parent["id"], None, None)
    told = {change["path"]: (change["from"], change["to"]) for change in made["diff"]}
    assert told["algorithm.type"] == ("mhpo", "grpo")
    assert told["algorithm.c"] == (1.25, None)
    assert told["name"] == ("sums", None)
    assert {path for path in told if not path.startswith("algorithm.")} == {"optimizer.lr", "name"}
    assert client.get(f"/v1/jobs/{made['id']}").json() == made
    assert made["spec"]["rollout"] == parent["spec"]["rollout"]


@pytest.mark.parametrize(
    ("patch", "param"),
    [
        ({"optimizer": {"lr": -1}}, "optimizer.lr"),
        ({"algorithm": {"type": "grpo", "c": 1.5}}, "algorithm.c"),
        ({"dataset": {"path": "./absent.jsonl"}}, "dataset.path"),
        ({"model": None}, "model"),
    ],
)
def test_a_clone_is_checked_like_a_new_job(client: httpx.Client, spec: Json, patch: Json, param: str) -> None:
    parent = client.post("/v1/jobs", json=spec).json()
    refused = client.post(f"/v1/jobs/{parent['id']}/clone", json=patch)
    assert (refused.status_code, refused.json()["error"]["code"], refused.json()["error"]["param"]) == (
        422,
        "invalid_spec",
        param,
    )
    assert len(client.get("/v1/jobs").json()["data"]) == 1


def test_what_a_run_recorded_is_read(client: httpx.Client, running: Callable[..., Claim], spec: Json) -> None:
    claim = running(evaluation={"benchmarks": [spec["dataset"]["path"]]})
    run = f"/v1/jobs/{claim.job_id}"
    completion = {
        "text": "2",
        "tokens": 1,
        "finish_reason": "stop",
        "reward": 1.0,
        "by_grader": {"math": 1.0},
        "advantage": 0.5,
    }
    sample = {"step": 1, "problem_id": "p-1", "prompt": "1+1=", "answer": "2", "completions": [completion]}
    warning = {"time": 1.0, "step": 1, "level": "warn", "type": "warning", "message": "slow", "data": {"seconds": 3}}
    with transaction() as session:
        lines = [{"step": n, "time": 1.0, "metrics": {"reward": n / 10, "loss": -n / 10}} for n in (1, 2)]
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 10))
        store_events(session, claim, [warning], Span("events.jsonl", 0, 10))
        store_samples(session, claim, 1, [sample])
        store_checkpoint(session, claim, 10, "checkpoints/step_10", final=True)
    curves = client.get(f"{run}/metrics").json()
    assert curves["names"] == ["loss", "reward"]
    assert curves["series"]["reward"] == {"step": [1, 2], "value": [0.1, 0.2]}
    some = client.get(f"{run}/metrics", params={"names": "loss", "from_step": 2}).json()
    assert some["series"] == {"loss": {"step": [2], "value": [-0.2]}}
    events = client.get(f"{run}/events").json()["data"]
    assert [event["type"] for event in events] == ["status", "evaluation", "status", "warning", "evaluation"]
    assert (events[3]["level"], events[3]["data"], events[3]["attempt"]) == ("warn", {"seconds": 3}, 1)
    page = client.get(f"{run}/events", params={"after": events[0]["id"], "limit": 1}).json()
    assert (page["data"], page["has_more"]) == ([events[1]], True)
    expected = {"object": "sample", "attempt": 1, **sample, "completions": [{"index": 0, **completion}]}
    assert client.get(f"{run}/samples").json()["data"] == [expected]
    assert client.get(f"{run}/samples", params={"step": 1}).json()["data"] == [expected]
    assert client.get(f"{run}/samples", params={"step": 7}).json()["data"] == []
    [base, final] = client.get(f"{run}/evaluations").json()["data"]
    assert (base["model_kind"], final["model_kind"], final["step"]) == ("base", "checkpoint", 10)
    assert client.get(run).json()["step"] == 2


def test_a_checkpoint_is_available_while_its_folder_is_complete(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running()
    with transaction() as session:
        store_checkpoint(session, claim, 5, "checkpoints/step_5", final=False)
    folder = settings().run_folder(claim.job_id) / "checkpoints" / "step_5"

    def listed() -> Json:
        [checkpoint] = client.get(f"/v1/jobs/{claim.job_id}/checkpoints").json()["data"]
        return {key: checkpoint[key] for key in ("step", "final", "path", "available")}

    assert listed() == {"step": 5, "final": False, "path": str(folder), "available": False}
    folder.mkdir(parents=True)
    (folder / "COMPLETE").touch()
    assert listed()["available"] is True


def test_a_finished_job_tells_when_and_why(client: httpx.Client, running: Callable[..., Claim]) -> None:
    claim = running()
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    job = client.get(f"/v1/jobs/{claim.job_id}").json()
    assert (job["status"], job["phase"], job["status_reason"], job["worker"]) == ("succeeded", None, None, None)
    assert job["created_at"] <= job["started_at"] <= job["finished_at"]
    assert job["finished_at"].endswith("Z")


@pytest.mark.parametrize("path", ["", "/metrics", "/events", "/checkpoints", "/evaluations", "/samples"])
@pytest.mark.parametrize("job_id", ["job-aaaaaaaaaaaaaaaaaaaaaaaa", "nonsense", "%00", "%ff", "a" * 3000])
def test_an_unknown_job_is_404(client: httpx.Client, job_id: str, path: str) -> None:
    answer = client.get(f"/v1/jobs/{job_id}{path}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_errors_of_every_kind_have_one_form_and_an_id(client: httpx.Client) -> None:
    nobody = "/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa"
    answers = [
        (client.get("/v1/nothing"), 404, "not_found", None),
        (client.delete("/v1/jobs"), 405, "method_not_allowed", None),
        (client.get("/v1/jobs", params={"limit": 0}), 422, "invalid_request", "limit"),
        (client.get("/v1/jobs", params={"status": "lost"}), 422, "invalid_request", "status"),
        (client.get("/v1/jobs", params={"after": "job-x"}), 404, "not_found", None),
        (
            client.get("/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa/metrics", params={"from_step": 2**64}),
            422,
            "invalid_request",
            "from_step",
        ),
        *((client.post(f"{nobody}/{verb}"), 404, "not_found", None) for verb in ("cancel", "pause", "resume", "retry")),
        (client.post(f"{nobody}/clone", json={}), 404, "not_found", None),
        (client.post(f"{nobody}/clone", content=b"[]"), 400, "invalid_json", None),
        (client.post("/v1/jobs", content=b"x" * (1 << 20) + b"x"), 413, "body_too_large", None),
    ]
    for answer, status, code, param in answers:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
        assert error["type"] == "invalid_request_error"
        assert error["message"]
    ids = {answer.headers["x-request-id"] for answer, *_ in answers}
    assert len(ids) == len(answers)


def test_benchmarks_are_listed_by_name(client: httpx.Client) -> None:
    names = {benchmark["name"] for benchmark in client.get("/v1/benchmarks").json()["data"]}
    assert {"aime24", "aime25", "amc23", "math500", "hmmt25"} <= names


def test_the_openapi_document_has_an_example_of_each_body_and_no_dangling_reference(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    references: list[str] = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            references.extend(value for key, value in node.items() if key == "$ref")
        for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            collect(child)

    collect(document)
    assert {reference.removeprefix("#/components/schemas/") for reference in references} <= set(
        document["components"]["schemas"]
    )
    bodies = [
        method["requestBody"] for path in document["paths"].values() for method in path.values() if "requestBody" in method
    ]
    assert len(bodies) >= 6
    assert all("example" in content for body in bodies for content in body["content"].values())
    JobSpec.parse(JOB_EXAMPLE)
