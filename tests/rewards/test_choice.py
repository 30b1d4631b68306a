import json
from pathlib import Path
from typing import Any

import pytest

from trainer.grader_config import ChoiceGrader
from trainer.rewards.choice import options_of
from trainer.rewards.score import Scorer
from trainer.strict import SpecError
from trainer.types import Completion, Problem

SHARED = Path(__file__).parents[2].parent / "shared" / "benchmarks"
FILES = ["mathvision100", "mathverse100", "mathverse_textonly", "mathvista_testmini_noimages", "geometry3k10"]
LENGTHS = ("6cm", "7cm", "4cm", "5cm")
ANGLES = ("135°", "140°", "145°", "150°")
TANGENTS = ("A:$\\tan x$", "B:$\\cot x$", "C:$-\\tan x$", "D:$-\\cot x$")


def asked(answer: str, choices: tuple[str, ...], index: int = 0) -> Problem:
    return Problem(str(index), index, "?", answer, choices)


def said(text: str) -> Completion:
    return Completion((1,), text, (0.0,), "stop")


@pytest.fixture(scope="module")
def scorer() -> Any:
    with Scorer([ChoiceGrader(timeout=20.0)]) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("answer", "choices", "text", "reward"),
    [
        ("B", LENGTHS, r"\boxed{B}", 1.0),
        ("B", LENGTHS, r"\boxed{(B)}", 1.0),
        ("B", LENGTHS, r"\boxed{\text{B}}", 1.0),
        ("B", LENGTHS, r"\boxed{\textbf{(B) } 7cm}", 1.0),
        ("B", LENGTHS, r"\boxed{7cm}", 1.0),
        ("B", LENGTHS, r"\boxed{7\text{ cm}}", 1.0),
        ("B", LENGTHS, r"\boxed{7}", 1.0),
        ("B", LENGTHS, r"\boxed{6}", 0.0),
        ("B", LENGTHS, r"\boxed{A}", 0.0),
        ("B", LENGTHS, r"\boxed{(B) 6cm}", 0.0),
        ("7cm", LENGTHS, r"\boxed{B}", 1.0),
        ("145°", ANGLES, r"\boxed{145^\circ}", 1.0),
        ("145°", ANGLES, r"\boxed{145}", 1.0),
        ("145°", ANGLES, "C", 1.0),
        ("145°", ANGLES, "The correct option is C.", 1.0),
        ("145°", ANGLES, "The correct option is **(C)**.", 1.0),
        ("145°", ANGLES, "Answer: C", 1.0),
        ("145°", ANGLES, "A is too small, and C it might be", 0.0),
        ("145°", ANGLES, r"<think>\boxed{C}</think>I give up", 0.0),
        ("C\nD", TANGENTS, r"\boxed{C, D}", 1.0),
        ("C\nD", TANGENTS, r"\boxed{D and C}", 1.0),
        ("C\nD", TANGENTS, r"\boxed{C}", 0.0),
        ("C\nD", TANGENTS, r"\boxed{B, C, D}", 0.0),
        ("B", TANGENTS, r"\boxed{\cot x}", 1.0),
        ("C", ("B", "C", "A"), r"\boxed{C}", 1.0),  # texts that are letters: the text counts
        ("C", ("A", "B", "C", "D", "E"), r"\boxed{E}", 0.0),
        ("18", ("9", "12", "18", "18"), r"\boxed{D}", 1.0),  # two equal options are one
        ("(C)", (), r"\boxed{C}", 1.0),
        ("(C)", (), r"\boxed{B}", 0.0),
        (r"\frac12", (), r"\boxed{0.5}", 1.0),
        ("8.246", (), r"\boxed{8.247}", 0.0),
        (r"32.45 \mathrm{~cm}^{3}", (), r"\boxed{32.45}", 1.0),
    ],
)
def test_choice(scorer: Scorer, answer: str, choices: tuple[str, ...], text: str, reward: float) -> None:
    [found] = scorer.score([(asked(answer, choices), said(text))])
    assert (found.reward, found.errors) == (reward, {})


def test_an_answer_that_is_no_option_is_refused_by_row() -> None:
    with Scorer([ChoiceGrader()]) as scorer:
        scorer.check_answers([asked("8cm", ()), asked("B", LENGTHS)], "dataset", "a.jsonl")
        for answer in ("8cm", "E"):
            with pytest.raises(SpecError, match=r"row 4 of a\.jsonl, the answer: .* is neither one of the 4 options"):
                scorer.check_answers([asked(answer, LENGTHS, 3)], "dataset", "a.jsonl")


def rows(name: str) -> list[dict[str, Any]]:
    lines = (SHARED / f"{name}.jsonl").read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines if line.strip()]


@pytest.mark.slow
@pytest.mark.benchmark_data
@pytest.mark.skipif(not SHARED.exists(), reason=f"needs {SHARED}")
@pytest.mark.parametrize("name", FILES)
def test_every_row_is_right_by_letter_and_by_text_and_wrong_by_another_option(scorer: Scorer, name: str) -> None:
    problems = [asked(row["answer"], tuple(row.get("choices", ())), n) for n, row in enumerate(rows(name))]
    scorer.check_answers(problems, "dataset", name)
    right = [(problem, said(f"so \\boxed{{{problem.answer}}}")) for problem in problems]
    wrong = []
    for problem in problems:
        gold = options_of(problem.answer, problem.choices)
        if problem.choices and gold is not None:
            letters = [chr(ord("A") + place) for place in range(len(problem.choices))]
            by_text = set(problem.choices) & set(letters)  # a letter that is some option's text stands for that option
            if not by_text:
                right.append((problem, said(f"\\boxed{{{', '.join(letters[place] for place in sorted(gold))}}}")))
                wrong += [
                    (problem, said(f"\\boxed{{{letter}}}")) for letter in letters if options_of(letter, problem.choices) != gold
                ]
    assert [problem.answer for (problem, _), score in zip(right, scorer.score(right), strict=True) if score.reward != 1] == []
    assert [problem.answer for (problem, _), score in zip(wrong, scorer.score(wrong), strict=True) if score.reward != 0] == []
