"""`python -m evaluator` on a real model: what it writes, how it refuses, how it stops."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from evaluator.__main__ import run
from tests.evaluator.conftest import Document, write_config
from trainer.exits import Exit
from trainer.stopping import StopSignal

COMMAND = [sys.executable, "-m", "evaluator"]


def read_rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "rows" / f"{name}.jsonl").read_text().splitlines()]


def read_result(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return document


def check_outputs(folder: Path, document: Document) -> None:
    """The files agree with each other and with the spec."""
    result = read_result(folder)
    assert (result["status"], result["fault"], result["code"]) == ("succeeded", None, None)
    assert set(result["benchmarks"]) == {"digits", "sums"}
    for name, score in result["benchmarks"].items():
        rows = read_rows(folder, name)
        completions = [one for row in rows for one in row["completions"]]
        assert (score["problems"], score["n"]) == (len(rows), document["samples"]) == (8, 3)
        assert score["avg"] == pytest.approx(sum(one["score"] for one in completions) / len(completions))
        assert score["pass_at"]["1"] == pytest.approx(score["avg"])
        assert score["pass_at"]["3"] == pytest.approx(sum(any(c["score"] == 1 for c in row["completions"]) for row in rows) / 8)
        assert score["mean_tokens"] == pytest.approx(sum(one["tokens"] for one in completions) / len(completions))
        assert score["truncated"] == pytest.approx(
            sum(one["finish_reason"] == "length" for one in completions) / len(completions)
        )
        assert score["ci_low"] <= score["avg"] <= score["ci_high"]
    digits = [one for row in read_rows(folder, "digits") for one in row["completions"]]
    assert [one["score"] for one in digits] == [float(any(c.isdigit() for c in one["text"])) for one in digits]
    assert 0 < result["benchmarks"]["digits"]["avg"] < 1
    assert result["benchmarks"]["sums"]["no_answer"] == 1.0


def test_a_model_is_scored_end_to_end(document: Document, tmp_path: Path) -> None:
    config = write_config(tmp_path / "evaluation", document)
    ended = subprocess.run([*COMMAND, str(config)], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == Exit.DONE, ended.stderr
    check_outputs(config.parent, document)
    assert "digits: 8 problems" in ended.stdout
    assert "sampling 48 completions" in ended.stdout
    assert "digits: avg@3 " in ended.stdout
    first, other = read_rows(config.parent, "digits")[0], read_rows(config.parent, "sums")[0]
    assert first["problem"] == other["problem"]
    assert first["completions"][0]["text"] != other["completions"][0]["text"], "two benchmarks drew the same random numbers"


def test_the_same_spec_gives_the_same_rows_and_another_seed_others(document: Document, tmp_path: Path) -> None:
    texts = []
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        config = write_config(tmp_path / name, document | {"seed": seed})
        assert run(config, StopSignal()) is Exit.DONE
        texts.append((config.parent / "rows" / "digits.jsonl").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_fewer_problems_leave_the_samples_of_the_rest_as_they_were(document: Document, tmp_path: Path) -> None:
    all_rows, few_rows = (
        read_rows(config.parent, "digits")
        for config in (write_config(tmp_path / "all", document), write_config(tmp_path / "few", document | {"max_problems": 3}))
        if run(config, StopSignal()) is Exit.DONE
    )
    assert few_rows == all_rows[:3]


Change = Callable[[Document], None]


def nameless(document: Document) -> None:
    document["benchmarks"][1]["name"] = "two words"


def twins(document: Document) -> None:
    document["benchmarks"][1]["name"] = "digits"


def no_file(document: Document) -> None:
    document["benchmarks"][1]["path"] = "absent.jsonl"


def no_column(document: Document) -> None:
    document["benchmarks"][1]["answer_column"] = "answr"


def no_chat_template(document: Document) -> None:
    document["benchmarks"][1]["chat_template"] = True


def no_marker(document: Document) -> None:
    document["benchmarks"][0]["answer_after"] = "####"


def unreadable_gold(document: Document) -> None:
    file = Path(document["benchmarks"][1]["path"]).with_name("bad.jsonl")
    file.write_text('{"problem": "1+1=", "answer": "2"}\n{"problem": "1/2", "answer": "\\\\frac{1"}\n')
    document["benchmarks"][1]["path"] = str(file)


def outside(key: str, value: object) -> Change:
    def change(document: Document) -> None:
        document[key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside("sampels", 3), "sampels: unknown key 'sampels'; did you mean 'samples'?"),
        (outside("samples", 0), "samples: "),
        (outside("temperature", -1.0), "temperature: "),
        (outside("model", {"path": "no/such/folder"}), "model.path: no folder 'no/such/folder'"),
        (outside("max_new_tokens", 4096), "max_new_tokens: 4096 and the longest prompt's"),
        (outside("benchmarks", []), "benchmarks: "),
        (nameless, "benchmarks.1.name: "),
        (twins, "benchmarks: two have one name (digits, digits)"),
        (no_file, "benchmarks.1.path: no file 'absent.jsonl'"),
        (no_column, "benchmarks.1.answer_column: row 1 of "),
        (no_chat_template, "benchmarks.1.chat_template: "),
        (no_marker, "benchmarks.0.answer_after: the answer of row 1 of "),
        (unreadable_gold, "benchmarks.1.answer_column: row 2 of "),
    ],
)
def test_what_the_user_got_wrong_is_named(
    document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, message: str
) -> None:
    change(document)
    config = write_config(tmp_path / "evaluation", document)
    assert run(config, StopSignal()) is Exit.USER
    result = read_result(config.parent)
    assert (result["status"], result["fault"], result["code"]) == ("failed", "user", "bad_spec")
    assert result["message"].startswith(message)
    assert message in capsys.readouterr().err


def test_a_config_that_is_no_json_ends_with_78(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text("{")
    ended = subprocess.run([*COMMAND, str(config)], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == Exit.USER
    assert f"cannot read {config}" in ended.stderr


@pytest.mark.slow
def test_told_to_stop_it_stops_at_once(document: Document, tmp_path: Path) -> None:
    config = write_config(tmp_path / "evaluation", document | {"samples": 2000, "max_new_tokens": 100})
    with subprocess.Popen([*COMMAND, str(config)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert any("sampling" in line for line in process.stdout)
        asked = monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == Exit.STOPPED
        assert monotonic() - asked < 10
    result = read_result(config.parent)
    assert (result["status"], result["fault"], result["benchmarks"]) == ("stopped", None, {})
    assert not list((config.parent / "rows").iterdir())


@pytest.mark.slow
def test_a_model_is_scored_by_vllm(document: Document, tmp_path: Path) -> None:
    config = write_config(tmp_path / "evaluation", document | {"engine": "vllm"})
    ended = subprocess.run([*COMMAND, str(config)], capture_output=True, text=True, timeout=200, check=False)
    assert ended.returncode == Exit.DONE, ended.stderr
    check_outputs(config.parent, document)
