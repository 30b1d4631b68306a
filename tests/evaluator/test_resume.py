"""An evaluation that is killed goes on where it was, to the same result."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import pytest

from evaluator.__main__ import run
from evaluator.config import EvaluationSpec
from evaluator.evaluate import evaluate
from evaluator.journal import JOURNAL, Graded, Journal
from tests.evaluator.conftest import Document, write_config
from trainer.exits import Exit
from trainer.stopping import StopSignal


def graded(problem: int, sample: int, text: str = "5\u2028") -> Graded:
    return Graded("sums", problem, sample, text, tokens=2, finish_reason="stop", score=1.0, error=None, answer="5")


def test_a_journal_gives_back_what_was_added_but_no_torn_line(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    with Journal(file, "a") as journal:
        journal.add([graded(0, 0), graded(0, 1)])
        journal.add([graded(1, 0)])
    with file.open("r+b") as content:
        content.truncate(file.stat().st_size - 3)
    with Journal(file, "a") as again:
        assert list(again.graded.values()) == [graded(0, 0), graded(0, 1)]
        again.add([graded(1, 0), graded(1, 1)])
    with Journal(file, "a") as third:
        assert list(third.graded.values()) == [graded(0, 0), graded(0, 1), graded(1, 0), graded(1, 1)]


def test_a_journal_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    with Journal(tmp_path / JOURNAL, "a") as journal:
        journal.add([graded(0, 0)])
    with Journal(tmp_path / JOURNAL, "b") as other:
        assert other.graded == {}
    with Journal(tmp_path / JOURNAL, "a") as gone:
        assert gone.graded == {}


def test_half_an_evaluation_is_finished_to_the_same_result(document: Document, tmp_path: Path) -> None:
    whole, half = write_config(tmp_path / "whole", document), write_config(tmp_path / "half", document)
    leave_journal(whole, share=1.0)
    leave_journal(half, share=0.5)
    for config in (whole, half):
        assert run(config, StopSignal()) is Exit.DONE
    assert_same(half.parent, whole.parent)
    assert not (half.parent / JOURNAL).exists()


def test_another_seed_begins_anew(document: Document, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = write_config(tmp_path / "first", document)
    leave_journal(config, share=0.5)
    write_config(tmp_path / "first", document | {"seed": 6})
    assert run(config, StopSignal()) is Exit.DONE
    assert "going on" not in capsys.readouterr().out


def leave_journal(config: Path, share: float) -> None:
    """The folder as an evaluation leaves it that is killed after so much of its work."""
    evaluate(EvaluationSpec.parse(json.loads(config.read_text())), config.parent, lambda _: None)
    journal = config.parent / JOURNAL
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: 1 + int((len(lines) - 1) * share)]))


def assert_same(folder: Path, other: Path) -> None:
    for name in ("digits", "sums"):
        rows = [(one / "rows" / f"{name}.jsonl").read_bytes() for one in (folder, other)]
        assert rows[0] == rows[1]
    results = [json.loads((one / "result.json").read_text()) for one in (folder, other)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_killed_at_sixty_percent_it_goes_on_from_there(document: Document, tmp_path: Path) -> None:
    document = document | {"samples": 96, "max_new_tokens": 8}  # 2 x 8 problems: six calls of `generate`
    total = 2 * 8 * 96
    whole, killed = write_config(tmp_path / "whole", document), write_config(tmp_path / "killed", document)
    assert run(whole, StopSignal()) is Exit.DONE
    journal = killed.parent / JOURNAL
    with subprocess.Popen([sys.executable, "-m", "evaluator", str(killed)], stdout=subprocess.DEVNULL) as process:
        deadline = monotonic() + 120
        while not journal.exists() or journal.read_bytes().count(b"\n") - 1 < 0.6 * total:
            assert process.poll() is None, "it ended before it could be killed"
            assert monotonic() < deadline
        os.kill(process.pid, signal.SIGKILL)
    there = journal.read_bytes().count(b"\n") - 1
    assert 0.6 * total <= there < total
    assert not (killed.parent / "result.json").exists()
    again = subprocess.run(
        [sys.executable, "-m", "evaluator", str(killed)], capture_output=True, text=True, timeout=120, check=False
    )
    assert again.returncode == Exit.DONE, again.stderr
    assert f"going on: {there} of {total} completions are there" in again.stdout
    assert f"sampling {total - there} completions" in again.stdout
    assert_same(killed.parent, whole.parent)
