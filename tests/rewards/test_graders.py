"""Similarity, format, JSON schema, formulas, templates and OpenAI's wire forms."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.rewards.test_score import completion, problem
from trainer.config import JobSpec, MultiGrader
from trainer.formula import parse_formula
from trainer.rewards.score import GraderSpec, Scorer
from trainer.rewards.similarity import similarity
from trainer.rewards.wire import from_openai
from trainer.strict import SpecError
from trainer.types import Completion, Problem, Score

_OPEN: dict[str, Scorer] = {}  # one for each spec: its processes start once


@pytest.fixture(scope="module", autouse=True)
def close_scorers() -> Iterator[None]:
    yield
    for scorer in _OPEN.values():
        scorer.close()
    _OPEN.clear()


def spec(**document: Any) -> Any:
    return from_openai(document)


def score(grader: GraderSpec, text: str, answer: str = "5", **item: Any) -> Score:
    asked = Problem("p", 0, "?", answer, item=item)
    scorer = _OPEN.setdefault(grader.model_dump_json(), Scorer([grader]))
    return scorer.score([(asked, Completion((1,), text, (0.0,), "stop"))])[0]


REFERENCE = "{{item.answer}}"
INPUT = "{{sample.output_text}}"


@pytest.mark.parametrize(
    ("metric", "text", "answer", "expected"),
    [
        ("fuzzy_match", "the cat sat", "the cat sat", 1.0),
        ("fuzzy_match", "abcd", "abxy", 0.5),  # 2 x 2 / (4 + 4): the longest common subsequence
        ("rouge_1", "the cat sat", "the cat ran away", 4 / 7),  # precision 2/3, recall 2/4
        ("rouge_2", "the cat sat", "the cat ran away", 0.4),  # one of two and one of three pairs
        ("rouge_l", "the dog cat", "the cat", 0.8),
        ("rouge_5", "a b c d e f", "a b c d e f", 1.0),
        ("gleu", "the cat sat", "the cat sat", 1.0),
        ("gleu", "a b", "a c", 1 / 3),  # of 2 words and 1 pair, 1 word is shared
        ("bleu", "a b c d e", "a b c d e", 1.0),
        ("bleu", "x y z", "", 0.0),
        ("rouge_l", "", "", 1.0),
    ],
)
def test_text_similarity(metric: str, text: str, answer: str, expected: float) -> None:
    assert similarity(metric, text, answer) == pytest.approx(expected)


def test_the_text_similarity_grader_compares_what_its_templates_say() -> None:
    near = {"type": "text_similarity", "name": "near", "input": INPUT, "evaluation_metric": "rouge_1"}
    assert score(from_openai({**near, "reference": "{{item.title}}"}), "the cat", title="the cat sat").reward == pytest.approx(
        0.8
    )


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        (r"<think>hm</think> \boxed{5}", 1.0),
        (r"  <think>hm</think> \boxed{5}", 1.0),
        (r"<think>hm</think> 5", 0.0),
        (r"<think>\boxed{5}</think>", 0.0),
        (r"well <think>hm</think> \boxed{5}", 0.0),
        (r"<think>hm \boxed{5}", 0.0),
        (r"<think>a</think><think>b</think>\boxed{5}", 0.0),
        (r"<think> </think>\boxed{5}", 0.0),
        ("", 0.0),
    ],
)
def test_format(text: str, reward: float) -> None:
    assert score(spec(type="format"), text).reward == reward


def test_format_with_an_answer_tag() -> None:
    grader = spec(type="format", tags=["think", "answer"], boxed=False)
    assert score(grader, "<think>hm</think>\n<answer>5</answer>").reward == 1.0
    assert score(grader, "<answer>5</answer><think>hm</think>").reward == 0.0
    assert score(grader, "<think>hm</think><answer></answer>").reward == 0.0


SCHEMA = {"type": "object", "required": ["x"], "properties": {"x": {"type": "integer", "minimum": 0}}}


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ('{"x": 5}', 1.0),
        ('{"x": -5}', 0.0),
        ("{}", 0.0),
        ("x = 5", 0.0),
        ('<think>{"x": 5}</think>{"x": "5"}', 0.0),
        ('So:\n```json\n{"x": 1}\n```\nor\n```json\n{"x": 5}\n```', 1.0),
        ("[" * 100_000, 0.0),
    ],
)
def test_json_schema(text: str, reward: float) -> None:
    assert score(spec(type="json_schema", json_schema=SCHEMA), text).reward == reward


def test_a_schema_that_backtracks_or_points_elsewhere_costs_an_error() -> None:
    hostile = spec(type="json_schema", json_schema={"pattern": "^(a+)+$"}, timeout=0.5)
    assert score(hostile, '"' + "a" * 60 + 'b"').errors == {"json_schema": "timeout"}
    elsewhere = spec(type="json_schema", json_schema={"$ref": "http://127.0.0.1:9/schema.json"})
    assert "nresolvable" in score(elsewhere, "{}").errors["json_schema"]


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(SpecError, match="is no JSON Schema"):
        spec(type="json_schema", json_schema={"type": "integr"})


@pytest.mark.parametrize(
    ("formula", "value"),
    [
        ("a", 0.5),
        ("0.2 * a + 0.8 * b", 0.9),
        ("a ^ 2 + 2 ** 3", 8.25),
        ("-(a - b) / 2", 0.25),
        ("min(a, b, 3) + max(a, b) + abs(-1)", 2.5),
        ("floor(1.7) + ceil(a) + sqrt(4) + exp(0) + log(1)", 5.0),
    ],
)
def test_formulas(formula: str, value: float) -> None:
    assert parse_formula(formula).value({"a": 0.5, "b": 1.0}) == pytest.approx(value)


@pytest.mark.parametrize(
    "formula",
    ["", "a +", "__import__('os')", "a.real", "a[0]", "a if b else 0", "'x' * 9", "True", "f(a)", "sqrt(a, b)", "a % 2", "1j"],
)
def test_what_is_no_arithmetic_is_refused(formula: str) -> None:
    with pytest.raises(ValueError, match="is no"):
        parse_formula(formula)


def multi(formula: str) -> Any:
    return spec(
        type="multi",
        name="both",
        graders={"right": {"type": "math"}, "short": {"type": "length", "target": 1, "limit": 3}},
        calculate_output=formula,
    )


def test_multi_is_its_formula_over_named_graders() -> None:
    assert score(multi("0.75 * right + 0.25 * short"), r"\boxed{\frac{10}{2}}") == Score(1.0, {"both": 1.0})
    assert score(multi("0.75 * right + 0.25 * short"), r"\boxed{6}") == Score(0.25, {"both": 0.25})
    with Scorer([multi("right * short")]) as scorer:
        assert scorer.score([(problem("5"), completion(r"\boxed{5}", 2))])[0].reward == 0.5


def test_a_formula_without_a_value_and_a_failing_part_cost_an_error() -> None:
    assert "ZeroDivisionError" in score(multi("short / right"), r"\boxed{6}").errors["both"]
    assert "math domain error" in score(multi("log(right)"), r"\boxed{6}").errors["both"]
    parts = {"slow": {"type": "regex", "pattern": "(a+)+$", "mode": "fullmatch", "timeout": 0.5}, "right": {"type": "exact"}}
    broken = spec(type="multi", graders=parts, calculate_output="slow + right")
    assert score(broken, "a" * 60 + "b").errors == {"multi": "timeout"}


def test_a_formula_names_its_graders() -> None:
    with pytest.raises(SpecError, match=r"names wrong; the graders are right, short"):
        multi("right + wrong")


def test_a_multi_grader_checks_the_answers_of_its_parts() -> None:
    with Scorer([multi("right")]) as scorer, pytest.raises(SpecError, match=r"row 1 of a\.jsonl"):
        scorer.check_answers([problem(r"\frac{1}{2")], "dataset.answer_column", "a.jsonl")


def test_templates_look_into_the_row_and_the_completion() -> None:
    grader = spec(
        type="string_check", name="x", input="{{sample.output_json.x.0}}!", reference="{{ item.want }}", operation="eq"
    )
    assert score(grader, '{"x": [5]}', want="5!").reward == 1.0
    assert score(grader, '{"x": [6]}', want="5!").reward == 0.0
    assert "there is no 'sample.output_json.x.0'" in score(grader, "x = 5", want="5!").errors["x"]


def test_openai_wire_forms() -> None:
    check = {"type": "string_check", "name": "Exact match", "input": INPUT, "reference": REFERENCE, "operation": "eq"}
    assert score(from_openai(check), "5").by_grader == {"Exact_match": 1.0}
    formula = {"type": "multi", "name": "m", "calculate_output": "m1 * 0.5"}
    named = {**check, "name": "m1"}
    for graders in ({"m1": check}, [named], named):
        assert score(from_openai({**formula, "graders": graders}), "5").reward == 0.5
    python = {"type": "python", "name": "p", "source": "def grade(sample, item): return 1", "image_tag": "2025-05-08"}
    assert from_openai(python).type == "python"


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"type": "score_model", "model": "o3"}, "grader.type", "needs a judge model"),
        ({"type": "label_model"}, "grader.type", "needs a judge model"),
        ({"type": "text_similarity", "evaluation_metric": "cosine"}, "grader.evaluation_metric", "embedding model"),
        ({"type": "text_similarity", "evaluation_metric": "meteor"}, "grader.evaluation_metric", "WordNet"),
        ({"reference": None}, "grader.reference", "a template such as"),
        ({"operation": "equals"}, "grader.operation", "'equals'"),
    ],
)
def test_wire_forms_that_cannot_be_graded_are_refused_plainly(change: dict[str, Any], param: str, message: str) -> None:
    check = {"type": "string_check", "name": "x", "input": INPUT, "reference": REFERENCE, "operation": "eq"}
    with pytest.raises(SpecError, match=message) as error:
        from_openai({**check, **change})
    assert error.value.param == param


def test_a_job_spec_holds_any_of_them() -> None:
    document = {
        "model": {"path": "base"},
        "dataset": {"path": "a.jsonl"},
        "rewards": [
            {
                "type": "multi",
                "graders": {"right": {"type": "math"}, "formed": {"type": "format"}},
                "calculate_output": "right",
            },
            {"type": "choice", "weight": 0.5},
        ],
    }
    rewards = JobSpec.parse(document).rewards
    assert isinstance(rewards[0], MultiGrader)
    assert JobSpec.parse(JobSpec.parse(document).model_dump(mode="json")).rewards == rewards
