"""Scores in the record, runs side by side, comparisons that make their jobs, registered benchmarks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.database import transaction
from api.ingest import store_checkpoint
from api.models import Json, ModelKind
from api.record import Claim
from api.settings import settings
from evaluator.benchmarks import known_benchmarks
from tests.api.conftest import rows
from tests.api.scoring import evaluate, result, train

WEAK = [[0.0, 1.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]
STRONG = [[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0], [0.0, 1.0], [1.0, 1.0], [1.0, 1.0], [1.0, 1.0]]
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def scored_job(running: Callable[..., Claim], tmp_path: Path) -> Callable[..., str]:
    """Makes a job that has trained four steps and whose base model and checkpoint are scored."""
    sums = tmp_path / "heldout" / "sums.jsonl"
    sums.parent.mkdir()
    sums.write_text('{"problem": "1+1=", "answer": "2"}\n')

    def make(trained: Json, **changes: Any) -> str:
        claim = running(evaluation={"benchmarks": [str(sums)]}, **changes)
        evaluate(claim.job_id, ModelKind.BASE, result(WEAK))
        train(claim, [0.1, 0.2, 0.3, 0.4], validation_reward=0.25)
        evaluate(claim.job_id, ModelKind.CHECKPOINT, trained)
        return claim.job_id

    return make


def test_scores_are_an_event_metrics_of_their_step_and_on_the_checkpoint(
    client: httpx.Client, scored_job: Callable[..., str]
) -> None:
    job_id = scored_job(result(STRONG, contaminated=3))
    series = client.get(f"/v1/jobs/{job_id}/metrics").json()["series"]
    assert series["eval/sums/avg"] == {"step": [0, 4], "value": [0.25, 0.875]}
    assert series["reward"] == {"step": [1, 2, 3, 4], "value": [0.1, 0.2, 0.3, 0.4]}
    [checkpoint] = client.get(f"/v1/jobs/{job_id}/checkpoints").json()["data"]
    assert checkpoint["scores"]["sums"]["avg"] == 0.875
    assert checkpoint["scores"]["sums"]["contaminated"] == 3
    assert (checkpoint["validation_reward"], checkpoint["best"]) == (0.25, True)
    events = [one for one in client.get(f"/v1/jobs/{job_id}/events").json()["data"] if one["type"] == "scores"]
    assert [(one["data"]["model_kind"], one["data"]["step"]) for one in events] == [("base", 0), ("checkpoint", 4)]
    assert events[1]["message"].startswith("The checkpoint of step 4 scores 0.875 [")
    assert events[1]["message"].endswith("(avg@2) on sums.")


def test_the_best_checkpoint_is_the_first_with_the_highest_validation_reward(
    client: httpx.Client, running: Callable[..., Claim]
) -> None:
    claim = running()
    with transaction() as session:
        for step, reward in ((1, None), (2, 0.5), (3, 0.75), (4, 0.75), (5, 0.25)):
            store_checkpoint(session, claim, step, f"checkpoints/step_{step}", final=step == 5, validation_reward=reward)
    found = client.get(f"/v1/jobs/{claim.job_id}/checkpoints").json()["data"]
    assert [one["step"] for one in found if one["best"]] == [3]


def test_jobs_side_by_side(client: httpx.Client, scored_job: Callable[..., str]) -> None:
    weak, strong = scored_job(result(WEAK), name="grpo"), scored_job(result(STRONG, contaminated=2), name="mhpo")
    report = client.get("/v1/compare", params={"jobs": f"{weak},{strong}"}).json()
    assert [run["label"] for run in report["runs"]] == ["grpo", "mhpo"]
    [row] = report["benchmarks"]
    first, second = row["cells"]
    assert (row["name"], first["avg"], second["avg"], first["base_avg"]) == ("sums", 0.25, 0.875, 0.25)
    assert (first["versus_first"], first["gain"]["difference"]) == (None, 0.0)
    assert second["versus_first"]["difference"] == pytest.approx(0.625)
    assert second["versus_first"]["test"] == "paired_bootstrap"
    assert second["versus_first"]["significant"]
    assert second["gain"]["difference"] == pytest.approx(0.625)
    assert report["average"] == [0.25, 0.875]
    assert report["curves"]["reward"][1] == {"step": [1, 2, 3, 4], "value": [0.1, 0.2, 0.3, 0.4]}
    assert report["curves"]["grad_norm"][0]["value"] == [1.0, 0.5, pytest.approx(1 / 3), 0.25]


def test_a_report_as_markdown_and_as_a_picture(client: httpx.Client, scored_job: Callable[..., str]) -> None:
    weak, strong = scored_job(result(WEAK), name="a|b"), scored_job(result(STRONG, contaminated=2), name="mhpo")
    jobs = f"{weak},{strong}"
    text = client.get("/v1/compare", params={"jobs": jobs, "format": "markdown"})
    assert text.headers["content-type"].startswith("text/markdown")
    lines = text.text.splitlines()
    assert lines[0] == "| benchmark | a\\|b | mhpo |"
    assert lines[2].startswith("| sums | 25.0 [")
    assert ", first +62.5 (p < 0.001)*" in lines[2]
    assert "holds problems of the benchmarks: 2 of sums" in text.text
    picture = client.get("/v1/compare", params={"jobs": jobs, "format": "png"})
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(PNG)


def test_scores_of_other_rows_are_not_compared(client: httpx.Client, scored_job: Callable[..., str]) -> None:
    jobs = [scored_job(result(WEAK)), scored_job(result(STRONG, content_hash="b" * 64))]
    [row] = client.get("/v1/compare", params={"jobs": ",".join(jobs)}).json()["benchmarks"]
    assert row["cells"][1]["versus_first"] is None
    assert "is of other rows (aaaaaaaaaaaa, not bbbbbbbbbbbb)" in row["cells"][1]["not_comparable"]


def test_a_job_without_a_score_has_an_empty_cell(
    client: httpx.Client, scored_job: Callable[..., str], new_job: Callable[..., str]
) -> None:
    report = client.get("/v1/compare", params={"jobs": f"{scored_job(result(WEAK))},{new_job()}"}).json()
    assert report["benchmarks"][0]["cells"][1] is None
    assert report["average"] == [0.25, None]
    ids = ",".join(job for run in report["runs"] for job in run["job_ids"])
    for form in ("markdown", "png"):
        assert client.get("/v1/compare", params={"jobs": ids, "format": form}).status_code == 200


def test_unknown_jobs_and_none_are_refused(client: httpx.Client) -> None:
    assert client.get("/v1/compare", params={"jobs": ","}).json()["error"]["param"] == "jobs"
    assert client.get("/v1/compare", params={"jobs": "job-nope"}).status_code == 404


def comparison(spec: Json, **changes: Any) -> Json:
    base = {key: value for key, value in spec.items() if key != "name"}
    arms = [{"algorithm": {"type": "grpo"}}, {"algorithm": {"type": "mhpo", "c": 1.2}, "label": "MHPO c=1.2"}]
    return {"name": "paper", "base": base, "algorithms": arms, "seeds": [1, 2], **changes}


def test_one_post_makes_the_jobs_and_its_report_is_current(client: httpx.Client, spec: Json) -> None:
    made = client.post("/v1/comparisons", json=comparison(spec))
    assert made.status_code == 201, made.text
    found = made.json()
    assert [(job["label"], job["seed"], job["status"]) for job in found["jobs"]] == [
        ("grpo", 1, "queued"),
        ("grpo", 2, "queued"),
        ("MHPO c=1.2", 1, "queued"),
        ("MHPO c=1.2", 2, "queued"),
    ]
    job = client.get(f"/v1/jobs/{found['jobs'][3]['job_id']}").json()
    assert (job["name"], job["spec"]["seed"], job["spec"]["algorithm"]["c"]) == ("paper/MHPO c=1.2/2", 2, 1.2)
    assert client.get(made.headers["location"]).json() == found
    assert client.get("/v1/comparisons").json()["data"] == [found]
    report = client.get(f"/v1/comparisons/{found['id']}/report").json()
    assert [(run["label"], len(run["job_ids"])) for run in report["runs"]] == [("grpo", 2), ("MHPO c=1.2", 2)]
    assert client.get(f"/v1/comparisons/{found['id']}/report", params={"format": "png"}).content.startswith(PNG)


def test_seeds_are_averaged_problem_by_problem(client: httpx.Client, scored_job: Callable[..., str], spec: Json) -> None:
    found = client.post("/v1/comparisons", json=comparison(spec)).json()
    jobs = [scored_job(result(WEAK)), scored_job(result(STRONG))]
    with transaction() as session:
        for old, new in zip(found["jobs"], jobs, strict=False):
            change = "UPDATE comparison_jobs SET job_id = :new WHERE job_id = :old"
            session.connection().exec_driver_sql(
                change.replace(":new", "%(new)s").replace(":old", "%(old)s"), {"new": new, "old": old["job_id"]}
            )
    [row] = client.get(f"/v1/comparisons/{found['id']}/report").json()["benchmarks"]
    cell = row["cells"][0]
    assert (cell["seeds"], cell["problems"], cell["avg"]) == (2, 8, pytest.approx((0.25 + 0.875) / 2))


@pytest.mark.parametrize(
    ("changes", "param", "message"),
    [
        ({"algorithms": [{"algorithm": {"type": "mhop"}}]}, "algorithms.0.algorithm", "mhop"),
        ({"algorithms": [{"algorithm": {"type": "mhpo"}}] * 2}, None, "two have one label"),
        ({"seeds": [1, 1]}, None, "one is there twice"),
        ({"algorithms": []}, "algorithms", "at least 1"),
        (
            {"algorithms": [{"algorithm": {"type": "grpo"}, "overrides": {"kl": {"type": "odd"}}}]},
            "algorithms.0.overrides.kl",
            "odd",
        ),
        ({"seeds": list(range(60))}, None, "120 jobs; at most 100"),
    ],
)
def test_a_comparison_with_a_fault_makes_no_job(
    client: httpx.Client, spec: Json, changes: Json, param: str | None, message: str
) -> None:
    refused = client.post("/v1/comparisons", json=comparison(spec, **changes))
    assert refused.status_code in {400, 422}
    error = refused.json()["error"]
    assert error["param"] == param
    assert message in error["message"]
    assert client.get("/v1/jobs").json()["data"] == []
    assert rows("SELECT count(*) FROM comparisons") == [(0,)]


def test_a_fault_of_the_base_is_named_in_the_base(client: httpx.Client, spec: Json) -> None:
    wrong = comparison(spec)
    wrong["base"]["steps"] = 0
    assert client.post("/v1/comparisons", json=wrong).json()["error"]["param"] == "base.steps"
    assert client.get("/v1/comparisons/comparison-nope").status_code == 404


@pytest.fixture
def own_rows(tmp_path: Path) -> Path:
    file = tmp_path / "own.jsonl"
    file.write_text('{"question": "1+1=", "answer": "so #### 2"}\n{"question": "1+2=", "answer": "#### 3"}\n')
    return file


def test_a_registered_benchmark_is_listed_pinned_and_used_by_name(client: httpx.Client, spec: Json, own_rows: Path) -> None:
    entry = {"name": "own", "path": str(own_rows), "problem_column": "question", "answer_after": "####"}
    made = client.post("/v1/benchmarks", json=entry)
    assert made.status_code == 201, made.text
    assert (made.json()["registered"], len(made.json()["content_hash"])) == (True, 64)
    assert client.post("/v1/benchmarks", json=entry).json() == made.json()
    listed = client.get("/v1/benchmarks").json()["data"]
    assert [one["name"] for one in listed] == [*(one.name for one in known_benchmarks()), "own"]
    job_id = client.post("/v1/jobs", json={**spec, "evaluation": {"benchmarks": ["own"]}}).json()["id"]
    [evaluation] = client.get(f"/v1/jobs/{job_id}/evaluations").json()["data"]
    assert evaluation["spec"]["benchmarks"][0]["content_hash"] == made.json()["content_hash"]
    assert evaluation["spec"]["training"]["path"] == spec["dataset"]["path"]
    assert evaluation["spec"]["cache"] == str(settings().data_dir.resolve() / "scores")


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"name": "aime24"}, "name", "is a benchmark of the service"),
        ({"answer_after": "===="}, "benchmark.answer_after", "row 1 of"),
        ({"path": "/no/such/file.jsonl"}, "path", "MHPO_ALLOWED_ROOTS"),
        ({"path": "file-nope"}, "path", "no uploaded file"),
        ({"problem_column": "answer"}, "name", "is registered with other rows or settings"),
    ],
)
def test_a_benchmark_that_cannot_be_registered_is_refused(
    client: httpx.Client, own_rows: Path, change: Json, param: str, message: str
) -> None:
    entry = {"name": "own", "path": str(own_rows), "problem_column": "question", "answer_after": "####"}
    client.post("/v1/benchmarks", json=entry)
    error = client.post("/v1/benchmarks", json={**entry, **change}).json()["error"]
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert message in error["message"]


def test_python_graders_are_refused_where_the_deployment_has_them_off(client: httpx.Client, spec: Json) -> None:
    python = {"type": "python", "source": "def grade(sample, item): return 1"}
    multi = {"type": "multi", "graders": {"own": python}, "calculate_output": "own"}
    for grader, param in ((python, "rewards.0.type"), (multi, "rewards.0.graders.own.type")):
        error = client.post("/v1/jobs", json={**spec, "rewards": [grader]}).json()["error"]
        assert error["param"] == param
        assert "MHPO_PYTHON_GRADERS=1" in error["message"]


def test_what_a_model_answered_is_read_a_page_at_a_time(client: httpx.Client, scored_job: Callable[..., str]) -> None:
    job_id = scored_job(result(STRONG))
    evaluation_id = client.get(f"/v1/jobs/{job_id}/evaluations").json()["data"][1]["id"]
    folder = settings().evaluation_folder(evaluation_id) / "rows"
    folder.mkdir(parents=True)
    lines = [{"problem_id": str(n), "problem": "1+1=", "answer": "2", "completions": [{"score": 1.0}]} for n in range(5)]
    (folder / "sums.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    place = f"/v1/jobs/{job_id}/evaluations/{evaluation_id}/rows"
    page = client.get(f"{place}/sums", params={"after": 2, "limit": 2}).json()
    assert [row["problem_id"] for row in page["data"]] == ["2", "3"]
    assert page["has_more"]
    assert not client.get(f"{place}/sums", params={"after": 3}).json()["has_more"]
    assert client.get(f"{place}/other").status_code == 404
    assert client.get(f"{place}/..%2f..%2fconfig").status_code == 404
