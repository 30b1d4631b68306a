"""A script written for OpenAI's fine-tuning API, by its official client, with another base URL."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import openai
import pytest
from openai import DefaultHttpxClient, OpenAI

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_metrics
from api.models import Json, Status
from api.record import claim_job, finish
from api.settings import settings
from tests.api.conftest import rows
from tests.conftest import SECONDS, ApiServer

GRADER = {
    "type": "string_check",
    "name": "exact match",
    "input": "{{sample.output_text}}",
    "reference": "{{item.solution}}",
    "operation": "eq",
}


def training_rows(count: int = 20) -> bytes:
    rows = [{"messages": [{"role": "user", "content": f"{n}+1="}], "solution": n + 1, "level": 1} for n in range(count)]
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def connect(url: str) -> OpenAI:
    http = DefaultHttpxClient(trust_env=False, timeout=SECONDS)
    return OpenAI(base_url=f"{url}/v1", api_key="none", http_client=http, max_retries=2)


@pytest.fixture
def client_of_openai(client: httpx.Client, shared_api: ApiServer) -> Iterator[OpenAI]:
    with connect(shared_api.url) as connected:
        yield connected


@pytest.fixture
def training_file(client_of_openai: OpenAI) -> str:
    return client_of_openai.files.create(file=("train.jsonl", training_rows()), purpose="fine-tune").id


def body(spec: Json, training_file: str, grader: Json = GRADER, **hyperparameters: object) -> Json:
    method = {"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": hyperparameters}}
    return {"model": spec["model"]["path"], "training_file": training_file, "method": method}


def test_files(client_of_openai: OpenAI) -> None:
    made = client_of_openai.files.create(file=("train.jsonl", training_rows()), purpose="fine-tune")
    assert (made.object, made.filename, made.bytes, made.status) == ("file", "train.jsonl", len(training_rows()), "processed")
    assert isinstance(made.created_at, int)
    assert client_of_openai.files.wait_for_processing(made.id).id == made.id
    assert [file.id for file in client_of_openai.files.list(purpose="fine-tune")] == [made.id]
    assert client_of_openai.files.content(made.id).read() == training_rows()
    assert client_of_openai.files.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client_of_openai.files.retrieve(made.id)


def test_a_job_is_made_of_hyperparameters_and_ours(client_of_openai: OpenAI, training_file: str, spec: Json) -> None:
    validation = client_of_openai.files.create(file=("valid.jsonl", training_rows(5)), purpose="fine-tune").id
    knobs: Json = {"batch_size": 8, "n_epochs": 3, "learning_rate_multiplier": 2.0, "compute_multiplier": 0.5, "mhpo_c": 1.25}
    job = client_of_openai.fine_tuning.jobs.create(
        **body(spec, training_file, **knobs, eval_interval=4, eval_samples=3),
        validation_file=validation,
        suffix="sums",
        seed=7,
        metadata={"team": "a"},
        extra_body={"x_spec": {"rollout": {"engine": "transformers"}, "optimizer": {"max_grad_norm": None}}},
    )
    assert (job.object, job.status, job.seed, job.training_file) == ("fine_tuning.job", "queued", 7, training_file)
    assert (job.hyperparameters.batch_size, job.hyperparameters.n_epochs, job.metadata) == (8, 3, {"team": "a"})
    assert job.method is not None
    assert job.method.type == "reinforcement"
    [(ours,)] = rows("SELECT resolved_spec FROM jobs")
    assert (ours["name"], ours["seed"], ours["steps"]) == ("sums", 7, 8), "20 rows x 3 epochs in batches of 8"
    assert ours["algorithm"] == {**ours["algorithm"], "type": "mhpo", "c": 1.25}
    assert (ours["rollout"]["prompts_per_step"], ours["rollout"]["group_size"]) == (8, 4)
    assert ours["rollout"]["engine"] == "transformers"
    assert (ours["optimizer"]["lr"], ours["optimizer"]["max_grad_norm"]) == (2e-6, None)
    assert (ours["checkpoints"]["every"], ours["evaluation"]["samples"]) == (4, 3)
    assert (ours["rewards"][0]["type"], ours["rewards"][0]["name"]) == ("string_check", "exact_match")
    with open(ours["dataset"]["path"], encoding="utf-8") as made:
        assert json.loads(made.readline()) == {"solution": 1, "level": 1, "problem": "0+1=", "answer": "1"}
    assert client_of_openai.fine_tuning.jobs.retrieve(job.id) == job
    with pytest.raises(openai.ConflictError, match="has not ended, uses"):
        client_of_openai.files.delete(training_file)
    assert str(client_of_openai.fine_tuning.jobs.pause(job.id).status) == "paused"  # the client's types lack it
    assert client_of_openai.fine_tuning.jobs.resume(job.id).status == "queued"
    assert client_of_openai.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    with pytest.raises(openai.ConflictError, match="already cancelled"):
        client_of_openai.fine_tuning.jobs.cancel(job.id)


def test_jobs_are_paged_and_found_by_metadata(
    client_of_openai: OpenAI, training_file: str, spec: Json, client: httpx.Client
) -> None:
    made = [
        client_of_openai.fine_tuning.jobs.create(**body(spec, training_file), metadata={"n": str(n % 2)}).id for n in range(5)
    ]
    ours = client.post("/v1/jobs", json=spec).json()["id"]
    assert [job.id for job in client_of_openai.fine_tuning.jobs.list(limit=2)] == [ours, *made[::-1]]
    assert [job.id for job in client_of_openai.fine_tuning.jobs.list(metadata={"n": "1"})] == [made[3], made[1]]
    assert [job.id for job in client_of_openai.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [ours]
    assert client_of_openai.fine_tuning.jobs.retrieve(ours).training_file == spec["dataset"]["path"]
    assert client.get(f"/v1/jobs/{made[0]}").json()["status"] == "queued", "one record, two forms"


def test_events_checkpoints_and_the_model_of_a_job(client_of_openai: OpenAI, training_file: str, spec: Json) -> None:
    jobs = client_of_openai.fine_tuning.jobs
    job_id = jobs.create(**body(spec, training_file, batch_size=10, n_epochs=2), suffix="sums").id
    with transaction() as session:
        claim = claim_job(session, job_id, "worker-1")
        assert claim is not None
        for step in range(1, 5):
            line = {"step": step, "time": 1.0, "metrics": {"reward": step / 10, "num_tokens": 100.0 * step}}
            store_metrics(session, claim, [line], Span("metrics.jsonl", step - 1, step))
    with transaction() as session:
        for step in (2, 4):
            store_checkpoint(session, claim, step, f"checkpoints/step_{step}", final=step == 4)
        finish(session, claim, Status.SUCCEEDED, None)
    events = list(jobs.list_events(job_id, limit=2))
    assert [event.data["step"] for event in events if event.type == "metrics"] == [4, 3, 2, 1]  # type: ignore[index]
    assert events[1].message == "Step 4/4, train mean reward=0.40"
    assert events[1].data["train_mean_reward"] == 0.4  # type: ignore[index]
    assert next(event.message for event in events if event.type == "message") == "The job has succeeded."
    assert len({event.id for event in events}) == len(events) == 4 + 3
    checkpoints = list(jobs.checkpoints.list(job_id, limit=1))
    assert [checkpoint.step_number for checkpoint in checkpoints] == [4, 2]
    job = jobs.retrieve(job_id)
    assert (job.status, job.trained_tokens, job.finished_at is not None) == ("succeeded", 400, True)
    assert job.fine_tuned_model == f"ft:model:sums:{job_id}"
    assert checkpoints[1].fine_tuned_model_checkpoint == f"{job.fine_tuned_model}:ckpt-step-2"
    assert [model.id for model in client_of_openai.models.list()] == [job.fine_tuned_model, spec["model"]["path"]]
    for name in (job.fine_tuned_model, checkpoints[1].fine_tuned_model_checkpoint, spec["model"]["path"]):
        assert client_of_openai.models.retrieve(name).id == name
    folder = settings().run_folder(job_id) / "checkpoints" / "step_2"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    jobs.create(**{**body(spec, training_file), "model": checkpoints[1].fine_tuned_model_checkpoint})
    assert rows("SELECT resolved_spec -> 'model' ->> 'path' FROM jobs ORDER BY created_at DESC LIMIT 1") == [(str(folder),)]
    for wrong in ("ftevent-e999999", "nonsense"):
        with pytest.raises(openai.NotFoundError):
            jobs.list_events(job_id, after=wrong)


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"training_file": "file-aaaaaaaaaaaaaaaaaaaaaaaa"}, "training_file"),
        ({"model": "/nowhere"}, "model"),
        ({"model": "ft:a:b:job-aaaaaaaaaaaaaaaaaaaaaaaa"}, None),
        ({"seed": -1}, "seed"),
        ({"metadata": {"a": "b" * 513}}, "metadata.a"),
        ({"method": {"type": "supervised", "supervised": {}}}, "method.type"),
        ({"extra_body": {"x_spec": {"steps": 0}}}, "x_spec.steps"),
        ({"extra_body": {"fun": 1}}, "fun"),
    ],
)
def test_a_wrong_request_is_told_by_its_place(
    client_of_openai: OpenAI, training_file: str, spec: Json, change: Json, param: str | None
) -> None:
    with pytest.raises((openai.UnprocessableEntityError, openai.NotFoundError)) as refused:
        client_of_openai.fine_tuning.jobs.create(**{**body(spec, training_file), **change})
    assert refused.value.param == param
    assert refused.value.code
    assert refused.value.request_id
    assert rows("SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.parametrize(
    ("knobs", "param"),
    [({"batch_size": 0}, "batch_size"), ({"mhpo_c": -1.0}, "mhpo_c"), ({"mhpo_q": 1.0}, "mhpo_q"), ({"beta": 1}, "beta")],
)
def test_a_wrong_hyperparameter_is_told_by_its_name(
    client_of_openai: OpenAI, training_file: str, spec: Json, knobs: Json, param: str
) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as refused:
        client_of_openai.fine_tuning.jobs.create(**body(spec, training_file, **knobs))
    assert str(refused.value.param).startswith(f"method.reinforcement.hyperparameters.{param}")


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"messages": [{"role": "user", "content": "?"}]}, "row 2 of train.jsonl has no 'solution'"),
        ({"messages": [], "solution": 1}, "row 2 of train.jsonl: messages must be a list"),
        (
            {"messages": [{"role": "user", "content": 3}], "solution": 1},
            "row 2 of train.jsonl: messages.0.content must be text",
        ),
        ({"messages": [{"role": "assistant", "content": "?"}], "solution": 1}, "must be one user message"),
    ],
)
def test_a_wrong_row_is_told_by_number_and_field(client_of_openai: OpenAI, spec: Json, row: Json, says: str) -> None:
    content = training_rows(1) + json.dumps(row).encode() + b"\n"
    made = client_of_openai.files.create(file=("train.jsonl", content), purpose="fine-tune")
    with pytest.raises(openai.UnprocessableEntityError, match=says) as refused:
        client_of_openai.fine_tuning.jobs.create(**body(spec, made.id))
    assert refused.value.param == "training_file"


def test_graders_are_validated_and_run(client_of_openai: OpenAI) -> None:
    graders = client_of_openai.fine_tuning.alpha.graders
    assert graders.validate(grader=GRADER).grader.name == "exact match"  # type: ignore[arg-type,union-attr]
    for sample, reward in (("4", 1.0), ("5", 0.0)):
        score = graders.run(grader=GRADER, model_sample=sample, item={"solution": 4})  # type: ignore[arg-type]
        assert (score.reward, score.metadata.type, score.metadata.errors.other_error) == (reward, "string_check", False)
    ours = {"type": "math", "reference": "{{item.answer}}"}
    score = graders.run(grader=ours, model_sample="so \\boxed{1/2}", item={"answer": "0.5"})  # type: ignore[arg-type]
    assert (score.reward, score.sub_rewards) == (1.0, {"math": 1.0})
    python = {"type": "python", "source": "def grade(sample, item):\n    return 1.0"}
    for wrong, param in (
        ({"type": "fun"}, "grader"),
        ({**GRADER, "operation": "gt"}, "grader.operation"),
        (python, "grader.type"),  # switched off unless the deployment says otherwise
        ({"type": "http", "url": "http://127.0.0.1:9/"}, "grader.url"),  # a host that it does not name
    ):
        with pytest.raises(openai.UnprocessableEntityError) as refused:
            graders.validate(grader=wrong)  # type: ignore[arg-type]
        assert str(refused.value.param).startswith(param)


@contextmanager
def answers_dropped(server: ApiServer, count: int) -> Iterator[str]:
    """A way to the API on which the answers of the first `count` POSTs are lost after the API has given them."""
    target = urlsplit(server.url)
    dropped: list[bytes] = []

    def carry(client: socket.socket) -> None:
        with client, socket.create_connection((target.hostname, target.port)) as api:
            client.settimeout(SECONDS)
            request = client.recv(1 << 20)
            while not _is_whole(request):
                request += client.recv(1 << 20)
            api.sendall(request.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))
            answer = b"".join(iter(lambda: api.recv(1 << 16), b""))
            if request.startswith(b"POST") and len(dropped) < count:
                dropped.append(answer)
                return
            client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=carry, args=(client,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    assert len(dropped) == count
    assert all(b" 200 OK" in answer or b" 201 Created" in answer for answer in dropped)


def _is_whole(request: bytes) -> bool:
    head, end, content = request.partition(b"\r\n\r\n")
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and len(content) >= int(lengths[0] if lengths else 0)


@pytest.mark.parametrize("lost", [1, 2])
def test_a_client_that_lost_the_answer_and_asks_again_has_one_job(
    shared_api: ApiServer, training_file: str, spec: Json, lost: int
) -> None:
    with answers_dropped(shared_api, lost) as url, connect(url) as client:
        job = client.fine_tuning.jobs.create(**body(spec, training_file))
    assert rows("SELECT id FROM jobs") == [(job.id,)]
