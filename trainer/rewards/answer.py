"""What a completion says its answer is: the last box after the thinking."""

import re
from fractions import Fraction

LONGEST_ANSWER = 2000  # characters; what is longer is no answer

_NUMBER = re.compile(r"[-+]?(?:\d+|\d{1,3}(?:,\d{3})+)(?:\.\d*)?|[-+]?\.\d+")
_JOINED = re.compile(r"(?:[\s$]|\\[()\[\]])*(?:,|;|and|or|,\s*and|,\s*or)(?:[\s$]|\\[()\[\]])*")
_BARE = re.compile(r"[^\s$,;.{}\\]+(?:\.\d+)?")
_BOX = re.compile(r"\\(?:boxed|fbox)(?![A-Za-z])\s*")
_STATED = re.compile(
    r"####[ \t]*(\S[^\n]*)"
    r"|\b(?:option|choice|answer)\s+is\s*:?\s*\**\(?([A-Z])\)?\**(?![\w'])"
    r"|\b[Aa]nswer\s*(?:is|=|:)\s*:?\s*\**[ \t]*([^\s*][^\n]{0,200}?)\**\.?[ \t]*(?=\n|$)"
)
_FRACTION = re.compile(r"(-)?(?:\\[dt]?frac\{(\d{1,30})\}\{(\d{1,30})\}|(\d{1,30})/(\d{1,30}))")
_SPACING = re.compile(r"\s+|\\[,;:!]|\\(?:left|right)(?![A-Za-z])")
_EXACT_DECIMALS = 6  # math-verify rounds to as many, so that longer fractions are its to compare


def without_thinking(text: str) -> str:
    """The text without <think>...</think>. It may have begun in the prompt; after one that never ends nothing counts."""
    *thoughts, rest = text.split("</think>")
    said = [part.partition("<think>")[0] if "<think>" in part else "" for part in thoughts]
    return "".join(said) + rest.partition("<think>")[0]


def last_box(text: str) -> str | None:
    """What stands in the last \\boxed{...} (or \\boxed 5), braces balanced; boxes joined by a comma or a word are one answer.

    None where there is no box, the last one is not closed, or it is longer than LONGEST_ANSWER.

    >>> last_box("\\\\boxed{3}. No: $\\\\boxed{1}$ and $\\\\boxed{2}$")
    '1, 2'
    """
    starts = list(_BOX.finditer(text))
    parts: list[str] = []
    following = -1  # where the box after this one begins
    for start in reversed(starts):
        end, content = _box_at(text, start.end())
        if parts and (end < 0 or not _JOINED.fullmatch(text, end, following)):
            break
        if end < 0:
            return None
        parts.insert(0, content)
        following = start.start()
    answer = ", ".join(parts).strip()
    return answer if 0 < len(answer) <= LONGEST_ANSWER else None


def stated(text: str) -> str | None:
    """What is said to be the answer without a box: the last of `Answer: 5`, `the answer is 5`, `option C`, `#### 5`."""
    found = list(_STATED.finditer(text))
    answer = next(said for said in found[-1].groups() if said is not None).strip().strip("*$ ") if found else ""
    return answer if 0 < len(answer) <= LONGEST_ANSWER else None


def _box_at(text: str, place: int) -> tuple[int, str]:
    """(end, content) of the box whose brace, or bare token, begins at `place`; end is -1 where it is not closed."""
    if not text.startswith("{", place):
        bare = _BARE.match(text, place)
        return (bare.end(), bare.group()) if bare else (-1, "")
    depth = 0
    for brace in re.finditer(r"\\.|[{}]", text[place : place + 2 * LONGEST_ANSWER], re.DOTALL):
        depth += {"{": 1, "}": -1}.get(brace.group(), 0)
        if depth == 0 and brace.group() == "}":
            return place + brace.end(), text[place + 1 : place + brace.start()]
    return -1, ""


def plain(answer: str) -> str:
    """The answer without what never changes its value: outer dollars and spaces, thousands spacing, unicode signs."""
    answer = answer.strip().strip("$").strip()
    for written, meant in (("−", "-"), (",\\!", ","), ("{,}", ","), ("°", "^\\circ "), ("π", "\\pi ")):
        answer = answer.replace(written, meant)
    return answer


def as_number(answer: str) -> Fraction | None:
    """The value of an answer written as a plain integer or decimal, exactly; None for anything else."""
    if not _NUMBER.fullmatch(answer):
        return None
    return Fraction(answer.replace(",", "").rstrip("."))


def as_ratio(answer: str) -> Fraction | None:
    """The value of an answer written as a fraction of two integers, `3/4` or `\\frac{3}{4}`; None for anything else."""
    found = _FRACTION.fullmatch(answer)
    if found is None:
        return None
    sign, *written = found.groups()
    above, below = (int(number) for number in written if number is not None)
    return Fraction(-above if sign else above, below) if below else None


def same_number(gold: str, answer: str) -> bool | None:
    """Whether two plain numbers or simple fractions are equal; None where either is neither, or rounding might matter."""
    left, right = as_number(gold), as_number(answer)
    if left is None or right is None:
        values = [as_ratio(text) if value is None else value for text, value in ((gold, left), (answer, right))]
        known = None not in values and not _decimals(gold) and not _decimals(answer)
        return values[0] == values[1] if known else None
    if left != right and max(_decimals(gold), _decimals(answer)) > _EXACT_DECIMALS:
        return None
    return left == right


def canonical(answer: str) -> str:
    """One spelling for the ways of writing a number or a simple fraction; of other answers only spacing is made equal."""
    answer = plain(answer)
    for value in (as_ratio(answer), as_number(answer)):
        if value is not None:
            return str(value)
    return _SPACING.sub("", answer.replace("\\dfrac", "\\frac").replace("\\tfrac", "\\frac"))


def _decimals(number: str) -> int:
    return len(number.partition(".")[2])
