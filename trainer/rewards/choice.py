"""The choice grader: which options a completion chooses, by letter or by the option's text."""

import re

from trainer.grader_config import ChoiceGrader
from trainer.rewards.answer import canonical, last_box, stated, without_thinking
from trainer.rewards.grader import Combined, Grader, Verdict
from trainer.rewards.math import compare
from trainer.types import Completion, Problem

_LETTER = r"\(?\s*([A-Z])\s*\)?[.:]?"
_LETTERS = re.compile(rf"{_LETTER}(?:(?:\s*(?:[,;/&\n]|and|or)\s*|\s+){_LETTER})*")
_LED = re.compile(r"\(?([A-Z])(?:\)|[.:])\s*(.+)", re.DOTALL)  # "(B) 40", "B: 40"
_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|textrm)\s*\{([^{}]*)\}")


def choice_grader(spec: ChoiceGrader) -> Grader:
    """1.0 where the chosen options are the answer's. Without options, and with no letter for an answer: mathematics."""

    def grade(problem: Problem, completion: Completion) -> Verdict:
        answer = chosen_text(completion.text)
        if answer is None:
            return 0.0
        gold = options_of(problem.answer, problem.choices)
        if gold is None:
            return compare(problem.answer, answer, spec.timeout)
        chosen = options_of(answer, problem.choices)
        if chosen is not None or len(gold) != 1 or not problem.choices:
            return float(chosen == gold)
        (right,) = gold  # neither letter nor spelling of an option: it may still be its value
        options = [_option(problem.choices, number) for number in range(len(problem.choices))]
        same = [compare(option, answer, spec.timeout) for option in options]
        return Combined(tuple(same), lambda *scores: float(scores[right] == 1.0 and sum(scores) == 1.0))

    return grade


def check_choice(problem: Problem) -> str | None:
    """What is wrong with a problem whose answer none of its options is; None where nothing is."""
    if problem.choices and options_of(problem.answer, problem.choices) is None:
        return f"{problem.answer!r:.80} is neither one of the {len(problem.choices)} options nor the letters of some"
    return None


def chosen_text(text: str) -> str | None:
    """What a completion says it chooses: its last box, else what it states, else the whole of a short text."""
    text = without_thinking(text)
    found = last_box(text) or stated(text)
    if found is None and len(text.strip()) <= 3:
        found = text.strip() or None
    return found


def options_of(answer: str, choices: tuple[str, ...]) -> frozenset[int] | None:
    """Places of the options that an answer names, by text first, since an option's text may be a letter; None for none.

    >>> options_of("B", ("30", "40")), options_of("40", ("30", "40")), options_of("A, C", ())
    (frozenset({1}), frozenset({1}), frozenset({0, 2}))
    """
    spelled = _spelling(answer)
    texts = [_spelling(_option(choices, number)) for number in range(len(choices))]
    if spelled in texts:
        return frozenset([texts.index(spelled)])
    bare = _TEXT.sub(r"\1", answer).strip().strip("$").strip()
    led = _LED.fullmatch(bare)
    if led and texts and (place := _place(led.group(1), texts)) is not None and _spelling(led.group(2)) == texts[place]:
        return frozenset([place])
    if not _LETTERS.fullmatch(bare):
        return None
    places = [_place(letter, texts) for letter in re.findall(r"[A-Z]", bare)]
    return None if None in places else frozenset(place for place in places if place is not None)


def _place(letter: str, texts: list[str]) -> int | None:
    """Of the letter's option, or of the first with the same text: two equal options are one."""
    place = ord(letter) - ord("A")
    if not texts:
        return place
    return texts.index(texts[place]) if place < len(texts) else None


def _option(choices: tuple[str, ...], number: int) -> str:
    """The option's text without its own letter before it."""
    led = _LED.fullmatch(choices[number].strip())
    return led.group(2) if led and led.group(1) == chr(ord("A") + number) else choices[number]


def _spelling(text: str) -> str:
    return canonical(_TEXT.sub(r"\1", text)).replace("$", "").rstrip(".").casefold()
