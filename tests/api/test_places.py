"""A spec reaches nothing outside the deployment's folders, its list of hub ids, and the caller's own project."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from api.database import transaction
from api.models import Json
from api.places import check_hub_id, check_place
from api.preflight import plan
from api.record import create_job
from api.settings import Settings, settings
from tests.api.test_scoping import session_of
from trainer.config import JobSpec
from trainer.strict import SpecError

ROW = '{"problem": "1+1=", "answer": "2"}\n'
Setting = Callable[[str, str], None]


@pytest.fixture
def setting(record: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Setting]:
    """Sets a setting of this process for one test."""

    def set_it(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()

    yield set_it
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def house(tmp_path: Path, setting: Setting) -> Path:
    """inside/, where jobs may read; outside/, where they may not; the data folder data/."""
    for name in ("inside", "outside", "inside-out", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").write_text(ROW)
    setting("MHPO_ALLOWED_ROOTS", str(tmp_path / "inside"))
    setting("MHPO_DATA_DIR", str(tmp_path / "data"))
    return tmp_path


def place(text: str | Path) -> Path:
    with transaction() as session:
        return check_place(session, str(text), "dataset.path")


def refused(text: str | Path) -> str:
    with pytest.raises(SpecError) as caught:
        place(text)
    assert caught.value.param == "dataset.path"
    return caught.value.message


def test_what_lies_inside_is_found_and_links_in_it_are_followed(house: Path) -> None:
    rows = house / "inside" / "rows.jsonl"
    (house / "inside" / "link.jsonl").symlink_to(rows)
    (house / "outside" / "link").symlink_to(house / "inside")
    assert place(rows) == rows
    assert place(house / "inside" / "link.jsonl") == rows
    assert place(house / "outside" / ".." / "inside" / "rows.jsonl") == rows
    assert place(house / "outside" / "link" / "rows.jsonl") == rows


def test_nothing_outside_is_found_by_any_way(house: Path) -> None:
    rows = house / "outside" / "rows.jsonl"
    (house / "inside" / "file.jsonl").symlink_to(rows)
    (house / "inside" / "folder").symlink_to(house / "outside")
    (house / "inside" / "relative").symlink_to("../outside")
    (house / "inside" / "circle").symlink_to("circle")
    inside = house / "inside"
    ways: list[str | Path] = [
        rows,
        house / "inside-out" / "rows.jsonl",
        inside / ".." / "outside" / "rows.jsonl",
        inside / "file.jsonl",
        inside / "folder" / "rows.jsonl",
        inside / "relative" / "rows.jsonl",
        "/etc/passwd",
        "/proc/self/environ",
        "/dev/zero",
        "../../../../../../../../etc/passwd",
        "~/rows.jsonl",
        "file:///etc/passwd",
        "/",
    ]
    for way in ways:
        assert str(inside) in refused(way), way
        assert "1+1" not in refused(way)
    assert "cannot be a path" in refused(inside / "circle")
    assert refused("/nowhere/at/all") == refused("/etc/passwd").replace("/etc/passwd", "/nowhere/at/all")


def test_hidden_files_are_not_for_jobs(house: Path) -> None:
    (house / "inside" / ".ssh").mkdir()
    for name in (".env", ".ssh/keys.jsonl"):
        (house / "inside" / name).write_text(ROW)
        assert "MHPO_ALLOWED_ROOTS" in refused(house / "inside" / name)


def test_a_link_in_a_models_folder_leads_no_further(house: Path) -> None:
    model = house / "inside" / "model"
    (model / "deep").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "tokenizer.json").symlink_to(house / "inside" / "rows.jsonl")
    assert place(model) == model
    (model / "deep" / "model.safetensors").symlink_to(house / "outside" / "rows.jsonl")
    assert "MHPO_ALLOWED_ROOTS" in refused(model)


def test_of_the_data_folder_only_the_first_run_and_ones_own_runs_are_read(
    house: Path, setting: Setting, spec: Json, tmp_path: Path
) -> None:
    setting("MHPO_ALLOWED_ROOTS", str(tmp_path))  # which holds the data folder
    with session_of("red") as session:
        job_id = create_job(session, *plan(session, JobSpec.parse(spec)).as_json())
    data = house / "data"
    checkpoint = data / "runs" / job_id / "checkpoints" / "step_5"
    checkpoint.mkdir(parents=True)
    with session_of("red") as session:
        assert check_place(session, str(checkpoint), "model.path") == checkpoint
        assert check_place(session, str(data / "first-run" / "base"), "model.path").name == "base"
    private = [
        "key.json",
        "logs/api.log",
        "postgres/PG_VERSION",
        "files/file-1.jsonl",
        "runs",
        f"runs/{job_id}",
        "evaluations/x",
    ]
    for name in private:
        with session_of("red") as session, pytest.raises(SpecError):
            check_place(session, str(data / name), "model.path")
    with session_of("blue") as session, pytest.raises(SpecError):
        check_place(session, str(checkpoint), "model.path")


def test_without_a_setting_the_working_directory_is_where_jobs_may_read(
    house: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting("MHPO_ALLOWED_ROOTS", "")
    monkeypatch.chdir(house / "inside")
    assert place("rows.jsonl") == house / "inside" / "rows.jsonl"
    assert str(house / "inside") in refused("../outside/rows.jsonl")


@pytest.mark.parametrize("part", ["model", "dataset", "benchmark"])
def test_every_path_of_a_spec_is_checked(house: Path, spec: Json, part: str) -> None:
    (house / "outside" / "config.json").write_text("{}")
    for name in ("model", "dataset"):
        spec[name]["path"] = str(house / "inside" / ("model" if name == "model" else "rows.jsonl"))
    (house / "inside" / "model").mkdir()
    (house / "inside" / "model" / "config.json").write_text("{}")
    outside = {"model": house / "outside", "dataset": house / "outside" / "rows.jsonl"}
    if part == "benchmark":
        spec["evaluation"] = {"benchmarks": [str(house / "outside" / "rows.jsonl")]}
    else:
        spec[part]["path"] = str(outside[part])
    with transaction() as session, pytest.raises(SpecError) as caught:
        plan(session, JobSpec.parse(spec))
    assert caught.value.param == ("evaluation.benchmarks.0" if part == "benchmark" else f"{part}.path")
    assert "MHPO_ALLOWED_ROOTS" in caught.value.message


def test_hub_ids_are_those_of_the_list(setting: Setting) -> None:
    check_hub_id("anyone/anything", None, "model.path")
    setting("MHPO_HUB_ALLOW", "Qwen/*, openai/gsm8k")
    check_hub_id("Qwen/Qwen3-0.6B", "main", "model.path")
    check_hub_id("openai/gsm8k", None, "dataset.path")
    for hub_id, revision in (("openai/gsm8k2", None), ("qwen/x", None), ("Qwen/..", None), ("Qwen/a", "../../x")):
        with pytest.raises(SpecError) as caught:
            check_hub_id(hub_id, revision, "model.path")
        assert caught.value.param == "model.path"


def test_a_model_and_a_dataset_of_the_hub_go_by_the_list(setting: Setting, spec: Json) -> None:
    setting("MHPO_HUB_ALLOW", "Qwen/*")
    for part in ("model", "dataset"):
        asked = json.loads(json.dumps(spec))
        asked[part]["path"] = "other/thing"
        with transaction() as session, pytest.raises(SpecError, match="MHPO_HUB_ALLOW") as caught:
            plan(session, JobSpec.parse(asked))
        assert caught.value.param == f"{part}.path"
