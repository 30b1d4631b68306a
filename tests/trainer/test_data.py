"""Reading and ordering problems."""

import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from trainer.config import Dataset, JobSpec, Model
from trainer.data import ProblemOrder, check_model, check_sources, load_problems, split_problems
from trainer.strict import SpecError


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def rows(count: int) -> list[dict[str, object]]:
    return [{"problem": f"{i}+0=", "answer": i} for i in range(count)]


def test_jsonl_and_parquet_give_the_same_problems(tmp_path: Path) -> None:
    source = [{"q": "1+1", "a": "2", "id": "x"}, {"q": "2\u2028+2", "a": "4", "id": "y"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(source), tmp_path / "d.parquet")
    columns: dict[str, Any] = {"problem_column": "q", "answer_column": "a", "prompt_template": "Q: {problem} A:"}
    text = load_problems(Dataset(path=str(jsonl(tmp_path / "d.jsonl", *source)), **columns))
    assert text == load_problems(Dataset(path=str(tmp_path / "d.parquet"), **columns))
    assert [(p.id, p.index, p.prompt, p.answer) for p in text] == [("x", 0, "Q: 1+1 A:", "2"), ("y", 1, "Q: 2\u2028+2 A:", "4")]


@pytest.mark.parametrize(
    ("content", "param", "says"),
    [
        (['{"problem": "1", "answer": "1"}', "{"], "dataset.path", "line 2 of"),
        (["[1]"], "dataset.path", "line 1 of"),
        ([{"problem": "1", "anser": "1"}], "dataset.answer_column", "did you mean 'anser'"),
        ([{"problem": "1", "answer": None}], "dataset.answer_column", "row 1 of"),
        ([{"problem": "1", "answer": "1"}, {"problem": " ", "answer": "1"}], "dataset.problem_column", "row 2 of"),
        ([], "dataset.path", "has no rows"),
    ],
)
def test_faults_name_their_place(tmp_path: Path, content: list[object], param: str, says: str) -> None:
    with pytest.raises(SpecError) as error:
        load_problems(Dataset(path=str(jsonl(tmp_path / "d.jsonl", *content))))
    assert error.value.param == param
    assert says in error.value.message


def test_a_file_that_is_not_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "d.parquet").write_text("no parquet")
    (tmp_path / "d.jsonl").write_bytes(b"\xff\xfe")
    for name in ("d.parquet", "d.jsonl", "missing.jsonl"):
        with pytest.raises(SpecError) as error:
            load_problems(Dataset(path=str(tmp_path / name)))
        assert error.value.param == "dataset.path"


def test_sources_are_checked_without_loading_anything(tmp_path: Path, tiny_model: Path) -> None:
    path = str(jsonl(tmp_path / "d.jsonl", *rows(5)))
    good = {"model": {"path": str(tiny_model)}, "dataset": {"path": path}}
    check_sources(JobSpec.parse(good))
    check_model(Model(path="Qwen/Qwen3-4B-Base"))
    for change, param in (
        ({"model": {"path": str(tmp_path)}}, "model.path"),
        ({"model": {"path": str(tmp_path / "nowhere")}}, "model.path"),
        ({"dataset": {"path": path, "validation_size": 5}}, "dataset.validation_size"),
    ):
        with pytest.raises(SpecError) as error:
            check_sources(JobSpec.parse(good | change))
        assert error.value.param == param


def test_each_epoch_holds_every_problem_once_in_another_order(tmp_path: Path) -> None:
    problems = load_problems(Dataset(path=str(jsonl(tmp_path / "d.jsonl", *rows(10)))))
    order = ProblemOrder(problems, shuffle=True, seed=3)
    first, second = [[p.index for p in order.take(start, 10)] for start in (0, 10)]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second != list(range(10))
    assert [p.index for p in order.take(7, 6)] == [*first[7:], *second[:3]]
    assert [p.index for p in ProblemOrder(problems, shuffle=True, seed=4).take(0, 10)] != first
    assert [p.index for p in ProblemOrder(problems, shuffle=False, seed=3).take(8, 4)] == [8, 9, 0, 1]


def test_validation_rows_are_not_trained_on(tmp_path: Path) -> None:
    problems = load_problems(Dataset(path=str(jsonl(tmp_path / "d.jsonl", *rows(40)))))
    training, validation = split_problems(problems, 4, seed=0)
    assert len(validation) == 4
    assert sorted(p.index for p in [*training, *validation]) == list(range(40))
    assert split_problems(problems, 4, seed=0)[1] == validation
    assert split_problems(problems, 4, seed=1)[1] != validation
