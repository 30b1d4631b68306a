from collections.abc import Callable, Iterator
from time import monotonic

import pytest

from trainer.config import ExactGrader, LengthGrader, MathGrader, RegexGrader, StringCheckGrader
from trainer.rewards.grader import Grader
from trainer.rewards.pool import Call
from trainer.rewards.score import GraderSpec, Scorer, make_grader
from trainer.strict import SpecError
from trainer.types import Completion, Problem, Score


def problem(answer: str, index: int = 0) -> Problem:
    return Problem(id=str(index), index=index, prompt="?", answer=answer)


def completion(text: str, tokens: int = 3) -> Completion:
    return Completion(token_ids=(1,) * tokens, text=text, sampler_logprobs=(-0.5,) * tokens, finish_reason="stop")


def score_one(spec: GraderSpec, answer: str, text: str, tokens: int = 3) -> Score:
    with Scorer([spec]) as scorer:
        return scorer.score([(problem(answer), completion(text, tokens))])[0]


@pytest.fixture(scope="module")
def math_scorer() -> Iterator[Scorer]:
    with Scorer([MathGrader()]) as scorer:
        yield scorer


@pytest.mark.parametrize(
    ("answer", "text", "reward"),
    [
        ("24", r"3+7=10\boxed{24}", 1.0),
        ("24", r"3+7=10\boxed{23}", 0.0),
        ("24", "24", 0.0),
        ("24", r"<think>\boxed{24}</think> I do not know", 0.0),
        ("7", r"<think>maybe \boxed{3}</think>\boxed{7}", 1.0),
        ("27.0", r"\boxed{27}", 1.0),
        ("025", r"\boxed{25}", 1.0),
        (r"\frac{1}{2}", r"\boxed{0.5}", 1.0),
        (r"\frac{1}{2}", r"\boxed{\frac{2}{3}}", 0.0),
        (r"so the answer is $\boxed{\frac12}$", r"\boxed{0.5}", 1.0),
        ("0", r"\boxed{x=0}", 1.0),
        ("0", r"\boxed{f(x-1)=0}", 1.0),
        ("0", r"\boxed{5x-7y+4=0}", 0.0),
        ("3R^2+r", r"\boxed{r+3R^2}", 1.0),
        ("3R^2+r", r"\boxed{R+3r^2}", 0.0),
        ("C", r"\boxed{c}", 1.0),
        (r"5\text{ cm}", r"\boxed{5\text{ m}}", 0.0),
        (r"5\text{ cm}", r"\boxed{5}", 1.0),
        ("40_9", r"\boxed{40_{9}}", 1.0),
        ("40_9", r"\boxed{40_8}", 0.0),
        ("1,-2", r"\boxed{-2, 1}", 1.0),
        ("(1,-2)", r"\boxed{1,-2}", 1.0),
        ("(1,-2)", r"\boxed{-2,1}", 0.0),
    ],
)
def test_math(math_scorer: Scorer, answer: str, text: str, reward: float) -> None:
    assert math_scorer.score([(problem(answer), completion(text))]) == [Score(reward=reward, by_grader={"math": reward})]


@pytest.mark.parametrize(("text", "reward"), [("10", 1.0), (" 10\n", 1.0), ("10.", 0.0), ("110", 0.0)])
def test_exact(text: str, reward: float) -> None:
    assert score_one(ExactGrader(), " 10", text).reward == reward


@pytest.mark.parametrize(
    ("operation", "text", "reward"),
    [
        ("eq", "Paris", 1.0),
        ("eq", "Paris ", 0.0),
        ("ne", "Paris", 0.0),
        ("ne", "Rome", 1.0),
        ("like", "It is Paris.", 1.0),
        ("like", "It is paris.", 0.0),
        ("ilike", "It is PARIS.", 1.0),
        ("ilike", "It is Rome.", 0.0),
    ],
)
def test_string_check(operation: str, text: str, reward: float) -> None:
    spec = StringCheckGrader.parse({"type": "string_check", "operation": operation})
    assert score_one(spec, "Paris", text).reward == reward


@pytest.mark.parametrize(
    ("mode", "text", "reward"),
    [("search", "a <b>x</b>", 1.0), ("fullmatch", "a <b>x</b>", 0.0), ("fullmatch", "<b>x</b>", 1.0)],
)
def test_regex(mode: str, text: str, reward: float) -> None:
    spec = RegexGrader.parse({"type": "regex", "pattern": "<b>.*</b>", "mode": mode})
    assert score_one(spec, "", text).reward == reward


@pytest.mark.parametrize(("tokens", "reward"), [(0, 1.0), (10, 1.0), (15, 0.75), (30, 0.0), (99, 0.0)])
def test_length(tokens: int, reward: float) -> None:
    assert score_one(LengthGrader(target=10, limit=30), "", "", tokens).reward == reward


def test_the_reward_is_the_weighted_sum() -> None:
    specs: list[GraderSpec] = [MathGrader(weight=2.0), LengthGrader(name="short", weight=-0.5, target=2, limit=4)]
    with Scorer(specs) as scorer:
        right, wrong = scorer.score([(problem("5"), completion(r"\boxed{5}", 3)), (problem("5"), completion(r"\boxed{6}", 1))])
    assert right == Score(reward=1.75, by_grader={"math": 1.0, "short": 0.5})
    assert wrong == Score(reward=-0.5, by_grader={"math": 0.0, "short": 1.0})


def test_a_grader_that_hangs_costs_its_sample_and_no_other() -> None:
    specs: list[GraderSpec] = [RegexGrader(pattern="(a+)+$", mode="fullmatch", timeout=0.5), ExactGrader()]
    texts = ["aaa", "a" * 60 + "b", "b"]
    with Scorer(specs) as scorer:
        scores = scorer.score([(problem("aaa"), completion(text)) for text in texts])
    assert scores == [
        Score(reward=2.0, by_grader={"regex": 1.0, "exact": 1.0}),
        Score(reward=0.0, by_grader={"exact": 0.0}, errors={"regex": "timeout"}),
        Score(reward=0.0, by_grader={"regex": 0.0, "exact": 0.0}),
    ]


@pytest.fixture
def scorer_of() -> Iterator[Callable[[Grader], Scorer]]:
    opened: list[Scorer] = []

    def make(grader: Grader) -> Scorer:
        opened.append(Scorer([ExactGrader(name="odd"), MathGrader()], lambda spec: grader if spec.name else make_grader(spec)))
        return opened[-1]

    yield make
    for scorer in opened:
        scorer.close()


@pytest.mark.parametrize(
    ("grader", "reason"),
    [
        (lambda *_: Call("tests.rewards.failing:raise_error", (), 5.0), "KeyError: 'no such key'"),
        (lambda *_: Call("tests.rewards.failing:nan", (), 5.0), "returned nan, not a finite number"),
        (lambda *_: Call("tests.rewards.failing:hang", (), 0.5), "timeout"),
        (lambda _, completion: 1 / len(completion.text[:0]), "ZeroDivisionError: division by zero"),
        (lambda *_: float("inf"), "returned inf, not a finite number"),
        (lambda *_: None, "returned None, not a finite number"),
    ],
)
def test_a_failing_grader_is_named_and_the_reward_is_zero(
    scorer_of: Callable[[Grader], Scorer], grader: Grader, reason: str
) -> None:
    scores = scorer_of(grader).score([(problem("5"), completion(r"\boxed{5}"))])
    assert scores == [Score(reward=0.0, by_grader={"math": 1.0}, errors={"odd": reason})]


def test_equal_questions_are_asked_once(scorer_of: Callable[[Grader], Scorer]) -> None:
    scorer = scorer_of(lambda *_: Call("tests.rewards.failing:sleep", ("0.3",), 5.0))
    start = monotonic()
    assert scorer.score([(problem("5"), completion(r"\boxed{5}"))] * 100) == [Score(2.0, {"odd": 1.0, "math": 1.0})] * 100
    assert monotonic() - start < 100 * 0.3 / 8


def test_nothing_is_started_where_nothing_can_hang() -> None:
    with Scorer([MathGrader(), ExactGrader(), LengthGrader(target=1, limit=2)]) as scorer:
        scorer.score([(problem("12"), completion(rf"\boxed{{{number}}}")) for number in range(1000)])
        assert scorer.pool.process_ids() == []


def test_answers_that_can_never_be_matched_are_refused_by_row() -> None:
    with Scorer([MathGrader()]) as scorer:
        scorer.check_answers([problem(r"\frac43", 0), problem(r"p - q", 1), problem(r"\text{Evelyn}", 2)], "dataset", "a.jsonl")
        for answer, reason in ((r"\frac{1}{2", "cannot be read"), ("4+5=9\n#### 9", "only what follows ####")):
            with pytest.raises(SpecError, match=reason) as error:
                scorer.check_answers([problem("7", 0), problem(answer, 4)], "dataset.answer_column", "a.jsonl")
            assert error.value.param == "dataset.answer_column"
            assert "row 5 of a.jsonl" in error.value.message


def test_answers_of_other_graders_may_be_any_text() -> None:
    with Scorer([ExactGrader()]) as scorer:
        scorer.check_answers([problem(r"\frac{1}{2")], "dataset.answer_column", "a.jsonl")
