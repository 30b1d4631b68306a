"""What a trainer writes beyond all measure costs the worker no memory, and is told."""

import json
import tracemalloc
from pathlib import Path

import pytest
from sqlalchemy import select

from api.database import transaction
from api.models import Event, Json, Sample, StepMetrics
from api.record import Claim, claim_job, create_job
from api.settings import Settings
from worker.lines import MAX_LINE_BYTES
from worker.tail import MAX_SAMPLE_BYTES, RunTail

SPEC: Json = {
    "name": None,
    "priority": 0,
    "steps": 2,
    "checkpoints": {"every": 2},
    "evaluation": {"every": None, "base": True},
}
MIB = 1 << 20


def claimed() -> Claim:
    with transaction() as session:
        claim = claim_job(session, create_job(session, SPEC, SPEC, None), "test")
    assert claim is not None
    return claim


def write_hole(file: Path, size: int, behind: str) -> None:
    """A line of so many NUL characters, which take no place on the disk, and what comes after it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as stream:
        stream.seek(size)
        stream.write(f"\n{behind}".encode())


def warnings(claim: Claim) -> list[str]:
    with transaction() as session:
        query = select(Event.message).where(Event.job_id == claim.job_id, Event.type == "warning").order_by(Event.id)
        return list(session.scalars(query))


def test_a_line_without_measure_is_passed_over_and_told(record: Settings, tmp_path: Path) -> None:
    claim = claimed()
    line = json.dumps({"step": 1, "time": 1.0, "metrics": {"reward": 0.5}}) + "\n"
    write_hole(tmp_path / "metrics.jsonl", 256 * MIB, line)
    write_hole(tmp_path / "samples" / "step_1.jsonl", 2 * MAX_SAMPLE_BYTES, "")
    tail = RunTail(claim, tmp_path)
    tracemalloc.start()
    while tail.feed():
        pass
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 3 * MAX_LINE_BYTES
    with transaction() as session:
        assert session.scalars(select(StepMetrics.step)).all() == [1]
        assert session.scalars(select(Sample)).all() == []
    assert [message.split("; the first: ")[1] for message in warnings(claim)] == [
        f"a line of {256 * MIB + 1} bytes, more than the {MAX_LINE_BYTES} that are read",
        f"a line of {2 * MAX_SAMPLE_BYTES + 1} bytes, more than the {MAX_LINE_BYTES} that are read",
    ]


def test_of_samples_without_measure_the_first_are_recorded(record: Settings, tmp_path: Path) -> None:
    claim = claimed()
    text = "x" * (MAX_SAMPLE_BYTES // 8)
    lines = [json.dumps({"problem_id": str(n), "prompt": text, "answer": "", "completions": []}) + "\n" for n in range(10)]
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "step_1.jsonl").write_text("".join(lines))
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "time": 1.0, "metrics": {}}) + "\n")
    while RunTail(claim, tmp_path).feed():
        pass
    with transaction() as session:
        assert session.scalars(select(Sample.problem_id).order_by(Sample.position)).all() == list("01234567")
    [told] = warnings(claim)
    assert told.endswith(f"{len(lines[0]) * 2} bytes behind the first {len(lines[0]) * 8}")


def test_steps_with_many_samples_are_taken_in_a_few_at_a_time(
    record: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction that took in all that has gathered in an outage would be ended for its length, again and again."""
    monkeypatch.setattr("worker.tail.SAMPLE_BYTES_AT_ONCE", 1000)
    claim, metrics, sizes = claimed(), tmp_path / "metrics.jsonl", [300, 300, 300, 900, 2000, 100]
    (tmp_path / "samples").mkdir()
    for step, size in enumerate(sizes, start=1):
        line = {"problem_id": str(step), "prompt": "", "answer": "", "completions": []}
        (tmp_path / "samples" / f"step_{step}.jsonl").write_text(f"{json.dumps(line):{size}}\n")
        with metrics.open("a") as file:
            file.write(json.dumps({"step": step, "time": 1.0, "metrics": {"reward": 0.5}}) + "\n")
    tail, done = RunTail(claim, tmp_path), 0
    while tail.feed():
        with transaction() as session:
            taken = session.scalars(select(Sample.step).order_by(Sample.step)).all()
            assert session.scalars(select(StepMetrics.step).order_by(StepMetrics.step)).all() == taken
        new = sizes[done : len(taken)]
        assert len(new) == 1 or sum(new) < 1000
        done = len(taken)
    assert taken == [1, 2, 3, 4, 5, 6]
    assert warnings(claim) == []
