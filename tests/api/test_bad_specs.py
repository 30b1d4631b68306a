"""A bad body gets 400 or 422 with the place of its fault, and leaves no row behind."""

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import httpx
import pytest

from api.models import Json
from tests.api.conftest import rows

Edit = Callable[[Json, Path], None]


def put(place: str, value: object) -> Edit:
    """Sets the value at a dotted place of a spec."""

    def edit(spec: Json, _: Path) -> None:
        *parents, last = place.split(".")
        for parent in parents:
            spec = spec.setdefault(parent, {})
        spec[last] = value

    return edit


def write(place: str, name: str, content: str) -> Edit:
    """Has the spec point to a new file."""

    def edit(spec: Json, folder: Path) -> None:
        (folder / name).write_text(content)
        path = str(folder / name)
        put(place, [path] if place == "evaluation.benchmarks" else path)(spec, folder)

    return edit


def folder_without_config(spec: Json, folder: Path) -> None:
    (folder / "empty").mkdir()
    spec["model"]["path"] = str(folder / "empty")


def drop_model(spec: Json, _: Path) -> None:
    del spec["model"]


GOOD_ROW = '{"problem": "1+1=", "answer": "2"}\n'

BAD: list[tuple[str, Edit, str, str]] = [
    ("negative lr", put("optimizer.lr", -1.0), "optimizer.lr", "greater than 0"),
    ("group of one", put("rollout.group_size", 1), "rollout.group_size", "greater than or equal to 2"),
    ("text for a number", put("steps", "10"), "steps", "integer"),
    ("unknown key", put("rollout.groupsize", 4), "rollout.groupsize", "group_size"),
    ("unknown algorithm", put("algorithm", {"type": "ppo"}), "algorithm", "mhpo"),
    ("bad value in a tagged part", put("algorithm", {"type": "mhpo", "c": 0.0}), "algorithm.c", "greater than 0"),
    ("bad grader", put("rewards", [{"type": "regex", "pattern": "("}]), "rewards.0", "regular expression"),
    ("no model", drop_model, "model", "required"),
    ("model is nothing", put("model.path", "/nowhere/model"), "model.path", "/nowhere/model"),
    ("relative model is nothing", put("model.path", "./nowhere"), "model.path", "nowhere"),
    ("model without config", folder_without_config, "model.path", "config.json"),
    ("model path too long", put("model.path", "a" * 5000), "model.path", "path"),
    ("no dataset", put("dataset.path", "/nowhere/rows.jsonl"), "dataset.path", "/nowhere/rows.jsonl"),
    ("dataset is a folder", put("dataset.path", "/"), "dataset.path", "file"),
    ("dataset is no JSONL", write("dataset.path", "bad.jsonl", GOOD_ROW + "{nonsense\n"), "dataset.path", "line 2"),
    ("a row is a list", write("dataset.path", "bad.jsonl", GOOD_ROW + "[1]\n"), "dataset.path", "line 2"),
    ("a row with an endless number", write("dataset.path", "bad.jsonl", '{"a": ' + "9" * 5000 + "}"), "dataset.path", "line 1"),
    ("a row nested without end", write("dataset.path", "bad.jsonl", "[" * 100000), "dataset.path", "line 1"),
    ("no parquet", write("dataset.path", "bad.parquet", GOOD_ROW), "dataset.path", "parquet"),
    ("empty dataset", write("dataset.path", "empty.jsonl", ""), "dataset.path", "no rows"),
    ("missing column", put("dataset.answer_column", "answr"), "dataset.answer_column", "did you mean 'answer'"),
    ("empty answers", write("dataset.path", "bad.jsonl", '{"problem": "1", "answer": ""}\n'), "dataset.answer_column", "row 1"),
    ("all rows held out", put("dataset.validation_size", 20), "dataset.validation_size", "20"),
    ("unknown file", put("dataset.path", "file-aaaaaaaaaaaaaaaaaaaaaaaa"), "dataset.path", "file-aaaa"),
    ("ill-formed file id", put("dataset.path", "file-1"), "dataset.path", "file-1"),
    ("unknown benchmark", put("evaluation.benchmarks", ["aime24", "aime26"]), "evaluation.benchmarks.1", "aime2"),
    ("benchmark twice", put("evaluation.benchmarks", ["aime24", "aime24"]), "evaluation.benchmarks.1", "aime24"),
    ("no benchmark file", put("evaluation.benchmarks", ["/nowhere/b.jsonl"]), "evaluation.benchmarks.0", "/nowhere"),
    ("bad benchmark", write("evaluation.benchmarks", "b.jsonl", '{"problem": "1"}\n'), "evaluation.benchmarks.0", "'answer'"),
]


@pytest.mark.parametrize(("edit", "param", "says"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_bad_spec_is_refused_at_its_place(
    client: httpx.Client, spec: Json, tmp_path: Path, edit: Edit, param: str, says: str
) -> None:
    bad = deepcopy(spec)
    edit(bad, tmp_path)
    answer = client.post("/v1/jobs", json=bad)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (422, "invalid_spec", param)
    assert says in error["message"]
    assert_nothing_was_written()


BODIES: dict[str, bytes] = {
    "nothing": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a string": b'"spec"',
    "null": b"null",
    "NaN": b'{"steps": NaN}',
    "infinity": b'{"steps": -Infinity}',
    "a number that overflows": b'{"steps": 1e999}',
    "an integer beyond 64 bits": b'{"steps": 9223372036854775808}',
    "an integer without end": b'{"steps": ' + b"9" * 10000 + b"}",
    "NUL in a value": b'{"name": "a\\u0000b"}',
    "NUL in a key": b'{"a\\u0000b": 1}',
    "half a surrogate pair": b'{"name": "\\ud800"}',
    "half a surrogate pair in a key": b'{"\\udfff": 1}',
    "no UTF-8": b'{"name": "\xff"}',
    "UTF-16": '{"name": "a"}'.encode("utf-16"),
    "a key twice": b'{"steps": 1, "steps": 2}',
    "deep": b'{"a": ' * 100 + b"1" + b"}" * 100,
    "very deep": b"[" * 500000,
    "deep and closed": b'{"a": ' + b"[" * 20000 + b"]" * 20000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_body_that_is_no_usable_json_is_refused(client: httpx.Client, body: bytes) -> None:
    answer = client.post("/v1/jobs", content=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
    assert_nothing_was_written()


def test_a_hub_id_is_taken_and_relative_paths_run_as_absolute_ones(client: httpx.Client, spec: Json, tmp_path: Path) -> None:
    dataset = tmp_path / "folder" / ".." / "sums.jsonl"
    (tmp_path / "folder").mkdir()
    spec["model"]["path"] = "Qwen/Qwen3-0.6B"
    spec["dataset"]["path"] = str(dataset)
    answer = client.post("/v1/jobs", json=spec)
    assert answer.status_code == 201
    assert answer.json()["spec"]["dataset"]["path"] == str(dataset)
    [(model, resolved)] = rows("SELECT resolved_spec -> 'model' ->> 'path', resolved_spec -> 'dataset' ->> 'path' FROM jobs")
    assert (model, resolved) == ("Qwen/Qwen3-0.6B", str(tmp_path / "sums.jsonl"))


def test_text_in_any_script_comes_back_as_it_was_sent(client: httpx.Client, spec: Json) -> None:
    name = "итог \U0001f600 ﷽ \u202e\\u0000"
    answer = client.post("/v1/jobs", content=json.dumps({**spec, "name": name}))
    assert answer.status_code == 201
    assert client.get(answer.headers["location"]).json()["name"] == name


def assert_nothing_was_written() -> None:
    for table in ("jobs", "events", "outbox", "evaluations"):
        assert rows(f"SELECT count(*) FROM {table}") == [(0,)]
