import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from evaluator.config import Benchmark
from evaluator.problems import benchmark_rows
from trainer.strict import SpecError

Row = dict[str, Any]


def benchmark(folder: Path, *answers: str) -> Benchmark:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps({"problem": f"p{i}", "answer": answer}) + "\n" for i, answer in enumerate(answers)))
    return Benchmark(name="set", path=str(file), answer_after="####")


def test_the_answer_is_what_follows_the_last_marker(tmp_path: Path) -> None:
    problems = benchmark_rows(benchmark(tmp_path, "2+3 = 5 #### 5", "a #### b\n#### 1,080\n"), "benchmarks.0").problems
    assert [problem.answer for problem in problems] == ["5", "1,080"]


def test_only_the_first_problems_are_taken(tmp_path: Path) -> None:
    problems = benchmark_rows(benchmark(tmp_path, "#### 1", "#### 2", "#### 3"), "benchmarks.0", 2).problems
    assert [(problem.index, problem.answer) for problem in problems] == [(0, "1"), (1, "2")]


@pytest.mark.parametrize("answer", ["5", "5 ####", "5 #### "])
def test_an_answer_without_the_marker_is_refused_by_row(tmp_path: Path, answer: str) -> None:
    with pytest.raises(SpecError, match="row 2") as error:
        benchmark_rows(benchmark(tmp_path, "#### 1", answer), "benchmarks.0")
    assert error.value.param == "benchmarks.0.answer_after"


def test_a_hub_benchmark_that_cannot_be_loaded_is_named_with_its_subset() -> None:
    code = "from evaluator.benchmarks import find_benchmark as f; from evaluator.problems import benchmark_rows as b; "
    code += "b(f('gsm8k'), 'benchmarks.0', None)"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": os.devnull, "MHPO_BENCHMARK_DIR": ""}
    ended = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=60, check=False)
    assert "SpecError: benchmarks.0.path: cannot load 'openai/gsm8k' (subset 'main', split 'test') from the hub" in ended.stderr


def hash_of(folder: Path, *rows: Row) -> str:
    file = folder / "hashed.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    entry = Benchmark(name="hashed", path=str(file), choices_column="choices", image_column="image")
    return benchmark_rows(entry, "benchmarks.0").content_hash


def test_the_content_hash_is_of_what_is_asked_and_expected_in_its_order(tmp_path: Path) -> None:
    first: Row = {"problem": "1+1", "answer": "2"}
    second: Row = {"problem": "1+2", "answer": "3"}
    # of the two lines ["1+1", "2"] and ["1+2", "3"]
    lines = b'["1+1", "2"]\n["1+2", "3"]\n'
    assert hash_of(tmp_path, first, second) == hashlib.sha256(lines).hexdigest()
    assert hash_of(tmp_path, {**first, "id": "x", "level": 3}, second) == hash_of(tmp_path, first, second)
    others: list[list[Row]] = [
        [second, first],
        [first],
        [{**first, "answer": "3"}, second],
        [{**first, "choices": ["2", "3"]}, second],
        [{**first, "image": "https://example.org/1.png"}, second],
    ]
    hashes = {hash_of(tmp_path, *rows) for rows in others}
    assert len(hashes) == len(others)
    assert hash_of(tmp_path, first, second) not in hashes


def test_rows_other_than_the_pinned_ones_are_refused(tmp_path: Path) -> None:
    entry = benchmark(tmp_path, "#### 1", "#### 2")
    pinned = entry.model_copy(update={"content_hash": benchmark_rows(entry, "benchmarks.0").content_hash})
    assert len(benchmark_rows(pinned, "benchmarks.0", 1).problems) == 1
    changed = benchmark(tmp_path, "#### 1", "#### 3").model_copy(update={"content_hash": pinned.content_hash})
    with pytest.raises(SpecError, match="are not those of 'set'") as error:
        benchmark_rows(changed, "benchmarks.0")
    assert error.value.param == "benchmarks.0.content_hash"


def test_options_and_images_come_with_their_problem(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "1.png").write_bytes(b"not looked into here")
    file = tmp_path / "set.jsonl"
    row = {"problem": "Which?", "answer": "B", "choices": ["30", 40], "image": ["pictures/1.png", "https://example.org/2.png"]}
    file.write_text(json.dumps(row) + "\n" + json.dumps({"problem": "How many?", "answer": "3"}) + "\n")
    template = "{problem}{choices}\nAnswer:"
    entry = Benchmark(name="set", path=str(file), choices_column="choices", image_column="image", prompt_template=template)
    which, many = benchmark_rows(entry, "benchmarks.0").problems
    assert which.prompt == "Which?\n(A) 30\n(B) 40\nAnswer:"
    assert which.choices == ("30", "40")
    assert which.images == (str(tmp_path / "pictures" / "1.png"), "https://example.org/2.png")
    assert (many.prompt, many.choices, many.images) == ("How many?\nAnswer:", (), ())


@pytest.mark.parametrize(
    ("columns", "param", "message"),
    [
        ({"image": "absent.png"}, "image_column", "names an image that is not there"),
        ({"image": 3}, "image_column", "is no image"),
        ({"image": "../../etc/passwd"}, "image_column", "outside of the rows' folder"),
        ({"image": ["/etc/passwd"]}, "image_column", "outside of the rows' folder"),
        ({"choices": "A, B"}, "choices_column", "is no list of options"),
        ({"choices": ["x"] * 27}, "choices_column", "has 27 options"),
    ],
)
def test_options_and_images_that_are_none_are_refused_by_row(tmp_path: Path, columns: Row, param: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        hash_of(tmp_path, {"problem": "?", "answer": "1"}, {"problem": "??", "answer": "1", **columns})
    assert error.value.param == f"benchmarks.0.{param}"
    assert "row 2" in error.value.message
