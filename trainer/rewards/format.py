"""The format grader."""

from trainer.grader_config import FormatGrader
from trainer.rewards.answer import last_box
from trainer.rewards.grader import Grader
from trainer.types import Completion, Problem


def format_grader(spec: FormatGrader) -> Grader:
    """1.0 where each tag opens and closes once, in order, with nothing before the first, and an answer is there."""

    def grade(_: Problem, completion: Completion) -> float:
        return float(_is_formed(spec, completion.text.strip()))

    return grade


def _is_formed(spec: FormatGrader, text: str) -> bool:
    rest, last = text, text
    for tag in spec.tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not rest.lstrip().startswith(opening):
            return False
        inside, found, rest = rest.lstrip().removeprefix(opening).partition(closing)
        if not found or not inside.strip():
            return False
        last = inside
    answer = rest if rest.strip() or len(spec.tags) < 2 else last  # <think>..</think><answer>..</answer> ends with its answer
    return last_box(answer) is not None if spec.boxed else bool(answer.strip())
