import json
import shutil
from pathlib import Path

import pytest

from evaluator.__main__ import run
from evaluator.cache import model_hash
from tests.evaluator.conftest import Document, write_config
from trainer.config import Model
from trainer.exits import Exit
from trainer.stopping import StopSignal


def evaluated(folder: Path, document: Document) -> dict[str, dict[str, object]]:
    config = write_config(folder, document)
    assert run(config, StopSignal()) is Exit.DONE
    result: dict[str, dict[str, object]] = json.loads((folder / "result.json").read_text())["benchmarks"]
    return result


def cached(result: dict[str, dict[str, object]]) -> dict[str, object]:
    return {name: one["cached"] for name, one in result.items()}


def test_the_same_model_rows_and_settings_are_scored_once(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = document | {"cache": str(tmp_path / "cache")}
    first = evaluated(tmp_path / "first", document)
    assert cached(first) == {"digits": False, "sums": False}
    capsys.readouterr()
    again = evaluated(tmp_path / "again", document)
    assert cached(again) == {"digits": True, "sums": True}
    assert "started in" not in capsys.readouterr().out, "no engine is needed"
    for name in ("digits", "sums"):
        assert {**again[name], "cached": False} == first[name]
        rows = [(tmp_path / run / "rows" / f"{name}.jsonl").read_bytes() for run in ("first", "again")]
        assert rows[0] == rows[1]


@pytest.mark.slow
def test_only_what_differs_is_scored_again(document: Document, tmp_path: Path) -> None:
    document = document | {"cache": str(tmp_path / "cache")}
    evaluated(tmp_path / "first", document)
    document["benchmarks"][0]["grader"]["pattern"] = "[a-z]"
    assert cached(evaluated(tmp_path / "grader", document)) == {"digits": False, "sums": True}
    changes: list[Document] = [{"samples": 2}, {"temperature": 0.5}, {"seed": 6}]
    for number, change in enumerate(changes):
        assert not any(cached(evaluated(tmp_path / str(number), document | change)).values()), change


def test_other_weights_are_another_model_and_another_place_is_not(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    assert model_hash(Model(path=str(copy))) == model_hash(Model(path=str(tiny_model)))
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert model_hash(Model(path=str(copy))) != model_hash(Model(path=str(tiny_model)))


def test_what_the_training_set_holds_is_said_with_the_score(document: Document, tmp_path: Path) -> None:
    held = Path(document["benchmarks"][0]["path"]).read_text().splitlines()[:3]
    (tmp_path / "train.jsonl").write_text("\n".join([*held, json.dumps({"problem": "1+1=", "answer": "2"})]) + "\n")
    result = evaluated(tmp_path / "first", document | {"training": {"path": str(tmp_path / "train.jsonl")}})["digits"]
    told = result["contamination"]
    assert isinstance(told, dict)
    assert (told["contaminated"], told["problems"], told["training"]) == (3, 8, str(tmp_path / "train.jsonl"))
    scores = result["problem_scores"]
    assert isinstance(scores, list)
    assert told["clean_avg"] == pytest.approx(sum(scores[3:]) / 5)


def test_a_training_set_that_is_gone_costs_its_comparison_and_no_score(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluated(tmp_path / "first", document | {"training": {"path": str(tmp_path / "gone.jsonl")}})
    assert result["digits"]["contamination"] is None
    assert "the training set cannot be compared with: training.path: no file" in capsys.readouterr().out
