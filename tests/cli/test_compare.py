"""`mhpo compare` and `mhpo benchmarks` against a real API."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.models import ModelKind
from tests.api.conftest import claimed
from tests.api.scoring import evaluate, result, train
from tests.cli.command import mhpo


@pytest.fixture
def jobs(url: str, spec: dict[str, Any], tmp_path: Path) -> list[str]:
    """Two jobs, of which the second has learnt something."""
    (tmp_path / "sums.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    made = []
    for name, scores in (("grpo", [[0.0], [0.0], [1.0], [0.0]]), ("mhpo", [[1.0], [1.0], [1.0], [0.0]])):
        document = {**spec, "name": name, "evaluation": {"benchmarks": [str(tmp_path / "sums.jsonl")]}}
        job_id = str(httpx.post(f"{url}/v1/jobs", json=document).raise_for_status().json()["id"])
        train(claimed(job_id), [0.1, 0.2])
        evaluate(job_id, ModelKind.CHECKPOINT, result(scores))
        made.append(job_id)
    return made


def test_jobs_are_compared_as_a_table_as_markdown_as_json_and_as_a_picture(url: str, jobs: list[str], tmp_path: Path) -> None:
    table = mhpo("compare", *jobs, "--url", url)
    assert table.returncode == 0, table.stderr
    lines = table.stdout.splitlines()
    assert lines[0].split() == ["benchmark", "grpo", "mhpo"]
    assert "25.0 [" in lines[1]
    assert "75.0 [" in lines[1]
    assert "+50.0 (p 0.500)" in lines[1]  # McNemar's exact test: two problems gained, none lost
    assert "0.2 at step 2" in table.stdout
    assert mhpo("compare", *jobs, "--markdown", "--url", url).stdout.startswith("| benchmark | grpo | mhpo |")
    assert json.loads(mhpo("compare", *jobs, "--json", "--url", url).stdout)["average"] == [0.25, 0.75]
    picture = tmp_path / "figure.png"
    assert mhpo("compare", *jobs, "--png", str(picture), "--url", url).stdout == f"{picture}\n"
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_rows_of_ones_own_are_added_and_listed(url: str, tmp_path: Path) -> None:
    own = tmp_path / "own.jsonl"
    own.write_text('{"question": "1+1=", "answer": "2"}\n')
    refused = mhpo("benchmarks", "add", "own", str(own), "--url", url)
    assert refused.returncode == 4
    assert "has no column 'problem'" in refused.stderr
    added = mhpo("benchmarks", "add", "own", str(own), "--problem-column", "question", "--samples", "4", "--url", url)
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("own: rows ")
    listed = mhpo("benchmarks", "list", "--url", url).stdout.splitlines()
    assert listed[0].split() == ["name", "rows", "from", "samples", "grader", "licence"]
    assert listed[-1].split()[0] == "own"
    assert {
        one["name"]: one["sampling"]["samples"]
        for one in map(json.loads, mhpo("benchmarks", "list", "--json", "--url", url).stdout.splitlines())
    }["own"] == 4
    assert mhpo("benchmarks", "add", "own", str(tmp_path / "absent.jsonl"), "--url", url).returncode == 4
