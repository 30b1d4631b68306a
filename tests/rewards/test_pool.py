import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from trainer.rewards.pool import Call, Failure, Pool, PoolError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def pool() -> Iterator[Pool]:
    with Pool(size=2) as pool:
        yield pool


def call(name: str, *arguments: str, timeout: float = 10.0) -> Call:
    return Call(f"tests.rewards.failing:{name}", arguments, timeout)


def match(text: str) -> Call:
    return Call("trainer.rewards.matching:search", ("a+b", text), timeout=10.0)


def test_outcomes_come_in_the_order_of_the_calls(pool: Pool) -> None:
    texts = [("b" if number % 3 else "ab") * number for number in range(50)]
    assert pool.run([match(text) for text in texts]) == [float("ab" in text) for text in texts]


def test_nothing_to_do_starts_nothing(pool: Pool) -> None:
    assert pool.run([]) == []
    assert pool.process_ids() == []


def test_a_call_that_hangs_is_ended_at_its_limit_and_the_others_are_answered(pool: Pool) -> None:
    start = monotonic()
    outcomes = pool.run([match("ab"), call("hang", timeout=0.5), match("b"), call("hang", timeout=0.5), match("ab")])
    assert outcomes == [1.0, Failure("timeout"), 0.0, Failure("timeout"), 1.0]
    assert monotonic() - start < 5
    assert pool.run([match("ab")]) == [1.0]


def test_a_regular_expression_that_backtracks_is_ended(pool: Pool) -> None:
    catastrophe = Call("trainer.rewards.matching:fullmatch", ("(a+)+", "a" * 60 + "b"), timeout=0.5)
    assert pool.run([catastrophe]) == [Failure("timeout")]


def test_the_clock_starts_when_the_process_is_ready_not_before(pool: Pool) -> None:
    calls = [call("sleep", "0.3", timeout=0.6) for _ in range(4)]
    assert pool.run(calls) == [1.0] * 4


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("raise_error", "KeyError: 'no such key'"),
        ("nan", "returned nan, not a finite number"),
        ("text", "returned '1.0', not a finite number"),
        ("crash", f"the grading process died ({-signal.SIGSEGV})"),
        ("eat_memory", "MemoryError: "),
        ("absent", "AttributeError: module 'tests.rewards.failing' has no attribute 'absent'"),
    ],
)
def test_a_grader_that_fails_gives_its_reason_and_the_pool_goes_on(pool: Pool, name: str, reason: str) -> None:
    assert pool.run([match("ab"), call(name), match("ab")]) == [1.0, Failure(reason), 1.0]


def test_what_a_library_prints_is_no_answer(pool: Pool) -> None:
    assert pool.run([call("chatter"), match("b")]) == [1.0, 0.0]


def test_a_killed_idle_process_is_replaced(pool: Pool) -> None:
    first = pool.run([call("process_id")])[0]
    assert isinstance(first, float)
    os.kill(int(first), signal.SIGKILL)
    _wait_for_state(int(first), "Z")
    second = pool.run([call("process_id")])[0]
    assert isinstance(second, float)
    assert second != first


def test_a_process_serves_many_calls(pool: Pool) -> None:
    outcomes = [pool.run([call("process_id")])[0] for _ in range(3)]
    assert len(set(outcomes)) == 1


def test_closing_ends_all_processes() -> None:
    with Pool(size=2) as pool:
        pool.run([match("ab")] * 4)
        ids = pool.process_ids()
    assert ids
    assert not any(Path(f"/proc/{pid}").exists() for pid in ids)


def test_a_grader_that_cannot_be_imported_is_the_runs_fault_not_the_samples() -> None:
    with Pool(preload=["no_such_module"]) as pool, pytest.raises(PoolError, match="no_such_module"):
        pool.run([match("ab")])


def test_terminating_the_group_leaves_grading_to_finish(pool: Pool) -> None:
    pool.run([match("ab")])
    for pid in pool.process_ids():
        os.kill(pid, signal.SIGTERM)
        os.kill(pid, signal.SIGINT)
    assert pool.run([call("process_id")]) == [float(pid) for pid in pool.process_ids()]


PARENT = """
import sys
from trainer.rewards.pool import Call, Pool
pool = Pool(size=1)
pool.run([Call("trainer.rewards.matching:search", ("a", "a"), 10.0)])
print(pool.process_ids()[0], flush=True)
pool.run([Call("tests.rewards.failing:hang", (), 60.0)])
"""


def test_a_killed_parent_leaves_no_process_in_the_middle_of_a_hang() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, cwd=ROOT) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        _wait_for_state(child, "R")  # it computes, so it has the call that hangs
        parent.kill()
    _wait_for_state(child, "Z")


def _wait_for_state(pid: int, state: str) -> None:
    """R: computing; Z: dead, or gone."""
    deadline = monotonic() + 30
    while (now := _state(pid)) != state:
        assert monotonic() < deadline, f"process {pid} is {now}, not {state}"


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
