"""Reading a file while it is written: complete lines only, each once, none that PostgreSQL would refuse."""

import json
from pathlib import Path

import pytest

from worker.lines import CHUNK_BYTES, EventLine, MetricsLine, last_lines, parse_lines, read_chunk


def metrics_line(step: int, **metrics: float) -> str:
    return json.dumps({"step": step, "time": 1760000000.5, "metrics": metrics}) + "\n"


def test_a_torn_last_line_waits_for_its_end(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    whole, torn = metrics_line(1, reward=0.5), metrics_line(2, reward=0.25)
    file.write_text(whole + torn[:20])
    first = read_chunk(file, 0, MetricsLine)
    assert [line.step for line in first.lines] == [1]
    assert first.offset == len(whole)
    assert read_chunk(file, first.offset, MetricsLine).lines == ()
    file.write_text(whole + torn)
    second = read_chunk(file, first.offset, MetricsLine)
    assert [(line.step, line.metrics) for line in second.lines] == [(2, {"reward": 0.25})]
    assert second.offset == len(whole + torn)


def test_no_file_has_no_lines(tmp_path: Path) -> None:
    chunk = read_chunk(tmp_path / "absent.jsonl", 0, MetricsLine)
    assert (chunk.lines, chunk.malformed, chunk.offset) == ((), (), 0)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"step": 3, "time": 1.0, "met{"step": 3}', "delimiter"),
        ('{"step": 3, "time": 1.0, "metrics": {"loss": NaN}}', "finite"),
        ('{"step": 3, "time": 1.0, "metrics": {"loss": 1e999}}', "finite"),
        ('{"step": -1, "time": 1.0, "metrics": {}}', "step"),
        ('{"step": 2147483648, "time": 1.0, "metrics": {}}', "step"),
        ('{"step": 3, "time": 1.0, "metrics": {"loss": "low"}}', "metrics.loss"),
        ("[]", "dictionary"),
        ('{"step": 3, "time": 1e300, "metrics": {}}', "time"),
        ("\xff", "decode"),
        ("[" * 50_000, "recursion"),
    ],
)
def test_a_bad_line_is_skipped_named_and_not_read_again(tmp_path: Path, line: str, reason: str) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_bytes(line.encode("latin-1") + b"\n" + metrics_line(4, reward=1.0).encode())
    chunk = read_chunk(file, 0, MetricsLine)
    assert [good.step for good in chunk.lines] == [4]
    assert len(chunk.malformed) == 1
    assert reason in chunk.malformed[0]
    assert chunk.offset == file.stat().st_size


def test_a_line_longer_than_a_chunk_is_read_whole(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    long = {"time": 1.0, "step": 1, "level": "info", "type": "warning", "message": "x" * (3 * CHUNK_BYTES), "data": {}}
    file.write_text(json.dumps(long) + "\n")
    (event,) = read_chunk(file, 0, EventLine).lines
    assert len(event.message) == 3 * CHUNK_BYTES


def test_a_long_file_is_read_in_chunks_that_lose_and_repeat_nothing(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(metrics_line(step, reward=step / 7) for step in range(30_000)))
    assert file.stat().st_size > 2 * CHUNK_BYTES
    steps: list[int] = []
    offset = 0
    while (chunk := read_chunk(file, offset, MetricsLine)).lines:
        steps += [line.step for line in chunk.lines]
        offset = chunk.offset
    assert steps == list(range(30_000))
    assert offset == file.stat().st_size


def test_a_lone_surrogate_and_a_nul_are_text_like_any_other() -> None:
    raw = json.dumps({"time": 1.0, "step": None, "level": "warn", "type": "t", "message": "a\x00b\ud800"})
    (event,), malformed = parse_lines(raw.encode(), EventLine)
    assert event.message == "a\x00b\ud800"
    assert malformed == ()


def test_a_key_of_a_newer_trainer_is_let_pass() -> None:
    (line,), _ = parse_lines(b'{"step": 1, "time": 2, "metrics": {"reward": 1}, "rank": 0}', MetricsLine)
    assert line.model_dump() == {"step": 1, "time": 2.0, "metrics": {"reward": 1.0}}


def test_last_lines_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "trainer.log"
    assert last_lines(log, 3) == ""
    log.write_bytes(b"one\ntwo\n\xffthree\nfour\n")
    assert last_lines(log, 3) == "two\n\ufffdthree\nfour"
