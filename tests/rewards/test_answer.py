from fractions import Fraction

import pytest

from trainer.rewards.answer import LONGEST_ANSWER, as_number, canonical, last_box, plain, same_number, stated, without_thinking


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("plain", "plain"),
        ("<think>a</think>b", "b"),
        ("a</think>b", "b"),
        ("x<think>a</think>y<think>b</think>z", "xyz"),
        ("x<think>never ends", "x"),
        ("<think>a</think>b<think>again", "b"),
        ("", ""),
    ],
)
def test_thinking_is_left_out(text: str, said: str) -> None:
    assert without_thinking(text) == said


@pytest.mark.parametrize(
    ("text", "box"),
    [
        ("no box, 7", None),
        (r"\boxed{7}", "7"),
        (r"\boxed {7}", "7"),
        (r"\boxed 7 and more", "7"),
        (r"\boxed 5.5.", "5.5"),
        (r"\fbox{7}", "7"),
        (r"first \boxed{3}. After checking, \boxed{7}.", "7"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{\left\{1 \right.}", r"\left\{1 \right."),
        (r"\boxed{\boxed{7}}", "7"),
        (r"$\boxed{1}$ and $\boxed{2}$", "1, 2"),
        (r"\boxed{1}, \boxed{2}, and \boxed{3}", "1, 2, 3"),
        (r"\boxed{1} or so, then \boxed{2}", "2"),
        (r"\boxed{1} \boxed{2}", "2"),
        (r"\boxed{3} then \boxed{7", None),
        (r"\boxed{}", None),
        (r"\boxed{ }", None),
        (r"\boxed", None),
        (r"\boxedfoo{7}", None),
        (r"\boxed{" + "1" * LONGEST_ANSWER + "}", "1" * LONGEST_ANSWER),
        (r"\boxed{" + "1" * (LONGEST_ANSWER + 1) + "}", None),
        (r"\boxed{" + "{" * 100_000, None),
    ],
)
def test_the_last_box_is_the_answer(text: str, box: str | None) -> None:
    assert last_box(text) == box


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("24", Fraction(24)),
        ("-007", Fraction(-7)),
        ("27.0", Fraction(27)),
        ("27.", Fraction(27)),
        (".5", Fraction(1, 2)),
        ("10,080", Fraction(10080)),
        ("1,234,567.25", Fraction(4938269, 4)),
        ("10,80", None),
        ("1 000", None),
        ("1e5", None),
        ("3+4", None),
        ("٣", Fraction(3)),
        ("½", None),
        ("", None),
    ],
)
def test_plain_numbers_are_read_exactly(text: str, number: Fraction | None) -> None:
    assert as_number(text) == number


def test_numbers_are_compared_exactly_but_for_long_fractions() -> None:
    assert same_number("10000000000000001", "10000000000000000") is False
    assert same_number("0.5", ".50") is True
    assert same_number("33", "33.5") is False
    assert same_number("0.3333333", "0.33333333") is None
    assert same_number("1/2", "0.5") is None


@pytest.mark.parametrize(
    ("gold", "answer", "same"),
    [
        (r"\frac{3}{4}", "3/4", True),
        (r"\frac{6}{8}", r"\dfrac{3}{4}", True),
        (r"\frac{3}{4}", r"-\frac{3}{4}", False),
        ("2", "6/3", True),
        ("1/3", "0.333333", None),  # a decimal is compared by math-verify, which rounds
        (r"\frac{1}{0}", r"\frac{1}{0}", None),
        (r"\frac34", r"\frac{3}{4}", None),
        (r"\frac{3}{4", "3/4", None),
        ("3}{4", "3/4", None),
        ("3/4/5", "3/4", None),
    ],
)
def test_simple_fractions_are_compared_exactly(gold: str, answer: str, same: bool | None) -> None:
    assert same_number(gold, answer) is same


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("0.50", r"\frac{1}{2}", True),
        (r"\dfrac{2}{4}", "1/2", True),
        ("1,000", "1000.0", True),
        (r"\left( 1, 2 \right)", "(1,2)", True),
        (r"x + 1", "x+1", True),
        ("x+1", "1+x", False),
        ("5", "-5", False),
    ],
)
def test_answers_have_one_spelling(left: str, right: str, same: bool) -> None:
    assert (canonical(left) == canonical(right)) is same


def test_what_never_changes_a_value_is_taken_away() -> None:
    assert plain(r" $10,\!080$ ") == "10,080"
    assert plain("−5") == "-5"
    assert plain(r"\$36") == r"\$36"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("**Answer: 5**", "5"),
        ("#### 1,080\n", "1,080"),
        ("So the answer is 3/4.", "3/4"),
        ("The correct option is C.", "C"),
        ("The correct choice is **(B)**, since A is too small.", "B"),
        ("Answer: 5\nNo: Answer: 7", "7"),
        ("It is 5.", None),
        ("The answer is\n", None),
        ("", None),
    ],
)
def test_an_answer_that_is_stated_without_a_box(text: str, answer: str | None) -> None:
    assert stated(text) == answer
