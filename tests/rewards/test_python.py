"""Users' code: it computes, and can do nothing else."""

from collections.abc import Iterator

import pytest

from tests.rewards.test_score import completion, problem
from trainer.grader_config import PythonGrader
from trainer.rewards.pool import Call, Failure, Pool
from trainer.rewards.score import Scorer
from trainer.strict import SpecError
from trainer.types import Score

GRADE = "import math, re\ndef grade(sample, item):\n    "


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Pool]:
    with Pool(sandboxed=True, size=1) as pool:
        yield pool


def outcome(pool: Pool, body: str, timeout: float = 20.0) -> object:
    return pool.run([Call("grade", (GRADE + body, '{"output_text": "x = 5"}', '{"answer": "5"}'), timeout, sandboxed=True)])[0]


@pytest.fixture
def switched_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHPO_PYTHON_GRADERS", "1")


@pytest.mark.usefixtures("switched_on")
def test_a_function_grades() -> None:
    source = GRADE + "return 0.5 * (re.findall(r'[0-9]+', sample['output_text'])[-1:] == [item['answer']])"
    with Scorer([PythonGrader(source=source)]) as scorer:
        right, wrong = scorer.score([(problem("5"), completion("so it is 5")), (problem("5"), completion("so it is 6"))])
    assert (right, wrong) == (Score(0.5, {"python": 0.5}), Score(0.0, {"python": 0.0}))


def test_off_unless_the_deployment_switches_it_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MHPO_PYTHON_GRADERS", raising=False)
    with pytest.raises(SpecError, match="MHPO_PYTHON_GRADERS=1"):
        Scorer([PythonGrader(source=GRADE + "return 1.0")])


@pytest.mark.parametrize(("source", "message"), [("def grade(", "is no Python"), ("x = 1", "must define a function grade")])
def test_a_source_that_grades_nothing_is_refused(source: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        PythonGrader.parse({"type": "python", "source": source})


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("open('/etc/passwd')", "PermissionError"),
        ("open('/tmp/mhpo-was-here', 'w')", "PermissionError"),
        ("import socket; return socket.socket().fileno()", "ModuleNotFoundError"),
        ("import os; return os.fork()", "PermissionError"),
        ("import os; os.execv('/bin/true', ['true'])", "PermissionError"),
        ("import os; os.kill(os.getpid(), 9)", "PermissionError"),
        ("import os; return len(os.listdir('/'))", "PermissionError"),
        ("import os; os.unlink('/tmp/mhpo-was-here')", "PermissionError"),
        ("import subprocess; return 1.0", "ModuleNotFoundError"),
        ("import trainer; return 1.0", "ModuleNotFoundError"),
        ("return [0] * 10**10", "MemoryError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("return sample['no such key']", "KeyError: 'no such key'"),
        ("return math.nan", "returned nan, not a finite number"),
        ("return 'right'", "returned 'right', not a finite number"),
    ],
)
def test_what_it_may_not_do_fails_and_costs_its_sample(sandbox: Pool, body: str, reason: str) -> None:
    found = outcome(sandbox, body)
    assert isinstance(found, Failure), found
    assert reason in found.reason
    assert outcome(sandbox, "return 1.0") == 1.0


def test_it_sees_no_environment(sandbox: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHPO_SECRET", "x")
    assert outcome(sandbox, "import os; return len([n for n in os.environ if n != 'LC_CTYPE'])") == 0.0


def test_the_kernel_itself_gives_it_no_socket(sandbox: Pool) -> None:
    assert outcome(sandbox, "import ctypes; return ctypes.CDLL(None).socket(2, 1, 0)") == -1.0
    assert outcome(sandbox, "import ctypes; return ctypes.CDLL(None).getpid() > 0") == 1.0


def test_one_that_never_ends_is_ended(sandbox: Pool) -> None:
    assert outcome(sandbox, "while True: pass", timeout=0.5) == Failure("timeout")
    assert outcome(sandbox, "return 1.0") == 1.0


def test_one_that_forges_replies_gets_none(sandbox: Pool) -> None:
    body = "import os\n    for fd in range(3, 8):\n        try: os.write(fd, b'{\\n')\n        except OSError: pass\n"
    body += "    return 1.0"
    assert isinstance(outcome(sandbox, body), Failure)
    assert outcome(sandbox, "return 1.0") == 1.0
