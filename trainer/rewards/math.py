"""The math grader: the last box against the gold. Plain numbers and equal texts are decided here, the rest in the pool."""

from trainer.config import MathGrader
from trainer.rewards.answer import as_number, last_box, plain, same_number, stated, without_thinking
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.types import Completion, Problem

EQUALITY = "trainer.rewards.equality"
GOLD_SECONDS = 5.0


def math_grader(spec: MathGrader) -> Grader:
    """1.0 where the completion's last box equals the answer; 0.0 where it does not, or where there is no box."""

    def grade(problem: Problem, completion: Completion) -> float | Call:
        answer = given_answer(spec, completion.text)
        return 0.0 if answer is None else compare(problem.answer, answer, spec.timeout)

    return grade


def given_answer(spec: MathGrader, text: str) -> str | None:
    """The last box after the thinking; with `unboxed`, where there is none, what the text states."""
    text = without_thinking(text)
    return last_box(text) or (stated(text) if spec.unboxed else None)


def compare(gold: str, answer: str, timeout: float) -> float | Call:
    """The verdict where both are plain numbers or the same text, else the call that finds it."""
    gold, answer = plain_gold(gold), plain(answer)
    if gold == answer:
        return 1.0
    same = same_number(gold, answer)
    return Call(f"{EQUALITY}:equal", (gold, answer), timeout) if same is None else float(same)


def check_gold(answer: str) -> float | Call:
    """1.0 for a plain number, else the call that fails for an answer that math-verify cannot read."""
    gold = plain_gold(answer)
    return Call(f"{EQUALITY}:check_gold", (gold,), GOLD_SECONDS) if as_number(gold) is None else 1.0


def plain_gold(answer: str) -> str:
    """A gold may be a solution whose answer is boxed."""
    return plain(last_box(answer) or answer)
