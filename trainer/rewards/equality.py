"""Mathematical equality by math-verify, and the places where it is known to be wrong. Runs in the pool's processes only."""

import re
from functools import lru_cache
from typing import Any

from math_verify import parse, verify

# math-verify's own limits are SIGALRM, whole seconds, and turn a hang into "wrong"; the pool's limit replaces them.
_NO_LIMIT = None

_MIXED_NUMBER = re.compile(r"(-?\d+) +(\d+)/(\d+)")
_BASE = re.compile(r"([0-9A-Fa-f]+)_\{?(\d+)\}?")
_COMMAND_OR_LETTER = re.compile(r"\\(?:text|mathrm|operatorname)\{[^{}]*\}|\\[A-Za-z]+|([A-Za-z])(?!_)")
_UNIT = re.compile(r"\\(?:text|mathrm|textrm)\s*\{[\s~\\]*([A-Za-z]+)\s*\}(?:\^\{?\d\}?)?$")
_UNITS = re.compile(r"[nmcdk]?m|in|ft|yd|mi|[mk]?g|lb|oz|m?s|min|hr?|m?l")
_RELATION = re.compile(r"=|<|>|\\(?:le|ge|lt|gt|leq|geq|neq|ne)(?![A-Za-z])")


def equal(gold: str, answer: str) -> float:
    """1.0 where the two mean the same, else 0.0: numbers, expressions, lists, sets, intervals, words."""
    if _differ_in_what_math_verify_drops(gold, answer):
        return 0.0
    gold, answer = _keep_order(gold, answer)
    answer = _keep_case(gold, answer)
    return float(
        verify(_parsed(_keep_case(gold, gold)), _parsed(answer), timeout_seconds=_NO_LIMIT, allow_set_relation_comp=True)
    )


def check_gold(answer: str) -> float:
    """1.0; raises ValueError for an answer that math-verify cannot read: it would score 0 for ever."""
    if "####" in answer:
        raise ValueError(f"{answer!r:.80} is a whole solution; the answer is only what follows ####")
    if answer.count("{") != answer.count("}") or not _parsed(answer):
        raise ValueError(f"{answer!r:.80} cannot be read as a mathematical answer")
    return 1.0


@lru_cache(maxsize=4096)
def _parsed(answer: str) -> list[Any]:
    """What stands in a box is read as LaTeX; anywhere else math-verify looks for the last plain number."""
    parsed: list[Any] = parse(f"\\boxed{{{_readable(answer)}}}", parsing_timeout=_NO_LIMIT)
    return parsed


def _readable(answer: str) -> str:
    """Two notations that math-verify does not read: `1 1/2`, and a plus-minus that stands inside a fraction."""
    answer = _MIXED_NUMBER.sub(r"\1\\frac{\2}{\3}", answer)
    if answer.count("\\pm") == 1 and "," not in answer:
        return ", ".join(answer.replace("\\pm", sign) for sign in "+-")
    return answer


def _differ_in_what_math_verify_drops(gold: str, answer: str) -> bool:
    """Bases and units, which vanish when it parses, and the left side of an equation given for the number 0."""
    bases = _BASE.fullmatch(gold), _BASE.fullmatch(answer)
    if bases[0] and bases[1] and bases[0].group(2) != bases[1].group(2):
        return True
    units = [
        found.group(1) for found in (_UNIT.search(gold), _UNIT.search(answer)) if found and _UNITS.fullmatch(found.group(1))
    ]
    if len(units) == 2 and units[0] != units[1]:
        return True
    return gold == "0" and _is_polynomial_equation(answer)


def _is_polynomial_equation(answer: str) -> bool:
    """True for `x^2 + 1 = 0`, whose right side math-verify takes for the value; not for `x = 0` or `f(x - 1) = 0`."""
    left, equals, right = answer.partition("=")
    left = re.sub(r"\([^()]*\)", "", left).strip()
    return bool(equals) and right.strip() == "0" and bool(re.search(r"[A-Za-z]", left)) and bool(re.search(r"[+-]", left[1:]))


def _keep_order(gold: str, answer: str) -> tuple[str, str]:
    """A point is not the set of its coordinates: where only one of two lists stands in parentheses, both are read as points."""
    points = [text.startswith("(") and text.endswith(")") and "(" not in text[1:] for text in (gold, answer)]
    lists = ["," in text and not re.search(r"[(\[{|]", text) and not _RELATION.search(text) for text in (gold, answer)]
    if points[1] and lists[0]:
        return f"({gold})", answer
    if points[0] and lists[1]:
        return gold, f"({answer})"
    return gold, answer


def _keep_case(gold: str, text: str) -> str:
    """math-verify lower-cases symbols; where a gold has a letter in both cases, the capital gets an index of its own."""
    letters = {found.group(1) for found in _COMMAND_OR_LETTER.finditer(gold) if found.group(1)}
    capitals = {letter for letter in letters if letter.isupper() and letter.lower() in letters}
    if not capitals:
        return text
    return _COMMAND_OR_LETTER.sub(lambda found: found.group() + ("_{1}" if found.group(1) in capitals else ""), text)
