"""A data set looked at before a job is made of it."""

import json
from pathlib import Path

import httpx
import pytest

from api.models import Json


@pytest.fixture
def dataset(tmp_path: Path) -> Json:
    file = tmp_path / "rows.jsonl"
    rows: list[Json] = [{"question": f"{n}+1=", "answer": n + 1, "level": [n]} for n in range(9)]
    rows[1]["question"] = "long " * 1000
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"path": str(file), "problem_column": "question"}


def preview(client: httpx.Client, dataset: Json, **params: int) -> Json:
    found: Json = client.post("/v1/datasets/preview", json=dataset, params=params).raise_for_status().json()
    return found


def test_rows_and_the_prompts_made_of_them(client: httpx.Client, dataset: Json) -> None:
    found = preview(client, {**dataset, "prompt_template": "Work out {problem}"}, rows=2)
    assert found["columns"] == ["question", "answer", "level"]
    assert found["rows"][0] == {"question": "0+1=", "answer": 1, "level": [0]}
    assert found["rows"][1]["question"].endswith("long …")
    assert [prompt["prompt"][:15] for prompt in found["prompts"]] == ["Work out 0+1=", "Work out long l"]
    assert (found["prompts"][0]["answer"], found["prompts"][0]["messages"], found["fault"]) == ("1", None, None)


def test_with_a_chat_template_what_it_is_given(client: httpx.Client, dataset: Json) -> None:
    found = preview(client, {**dataset, "chat_template": True, "system_prompt": "Be brief."}, rows=1)
    told = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "0+1="}]
    assert found["prompts"][0]["messages"] == told


def test_rows_are_shown_where_no_prompt_can_be_made(client: httpx.Client, dataset: Json) -> None:
    found = preview(client, {**dataset, "problem_column": "qestion"})
    assert (len(found["rows"]), found["prompts"]) == (3, [])
    assert found["fault"]["param"] == "dataset.problem_column"
    assert "did you mean 'question'?" in found["fault"]["message"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"path": "/etc/passwd"}, "dataset.path", "MHPO_ALLOWED_ROOTS"),
        ({"path": "openai/gsm8k"}, "dataset.path", "hub id"),
        ({"path": "file-" + "a" * 24}, "dataset.path", "no uploaded file"),
        ({"pth": 1}, "dataset.pth", "did you mean 'path'?"),
    ],
)
def test_what_cannot_be_read_is_refused(client: httpx.Client, dataset: Json, change: Json, param: str, words: str) -> None:
    answer = client.post("/v1/datasets/preview", json={**dataset, **change})
    assert (answer.status_code, answer.json()["error"]["param"]) == (422, param)
    assert words in answer.json()["error"]["message"]
