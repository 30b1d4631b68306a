"""Graders that look at more than one word or number: similarity, choice, format, schema, services, code. Torch-free."""

import ast
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from trainer.formula import parse_formula
from trainer.strict import Count, Listed, Strict


class GraderBase(Strict):
    name: Annotated[
        str | None, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$", description="Name in metrics; the type if left out")
    ] = None
    weight: Annotated[float, Field(ge=-1e6, le=1e6, description="The reward is the sum of weight x score")] = 1.0
    timeout: Annotated[float, Field(gt=0, le=60, description="Seconds a completion may take; then it counts as an error")] = 5.0


InputTemplate = Annotated[
    str | None,
    Field(
        description="What is graded, with {{sample.output_text}}, {{sample.output_json.a.b}} and {{item.column}} filled in; "
        "null: the completion"
    ),
]
ReferenceTemplate = Annotated[str | None, Field(description="What it is compared with, as input; null: the answer")]


class ChoiceGrader(GraderBase):
    """1 where the completion chooses the option that is the answer, by letter or by the option's text, in a box or stated.

    An answer of several letters wants them all. A problem without options is graded as mathematics.
    """

    type: Literal["choice"] = "choice"


class TextSimilarityGrader(GraderBase):
    """How alike two texts are, from 0 to 1: fuzzy_match (rapidfuzz), bleu and gleu (nltk), rouge (rouge-score)."""

    type: Literal["text_similarity"] = "text_similarity"
    input: InputTemplate = None
    reference: ReferenceTemplate = None
    evaluation_metric: Literal[
        "fuzzy_match", "bleu", "gleu", "rouge_1", "rouge_2", "rouge_3", "rouge_4", "rouge_5", "rouge_l"
    ] = "fuzzy_match"


class FormatGrader(GraderBase):
    """1 where the completion is each tag once, in order, with nothing before the first, and then an answer; else 0."""

    type: Literal["format"] = "format"
    tags: Annotated[
        Listed[tuple[Annotated[str, Field(pattern=r"^[A-Za-z][\w-]{0,31}$")], ...]],
        Field(description="think: <think>...</think>"),
    ] = ("think",)
    boxed: Annotated[bool, Field(description="The answer, after or in the last tag, stands in a \\boxed{}")] = True


class JsonSchemaGrader(GraderBase):
    """1 where the completion, or the last ```json block in it, is JSON that the schema allows, else 0."""

    type: Literal["json_schema"] = "json_schema"
    json_schema: Annotated[dict[str, Any], Field(description="JSON Schema, draft 2020-12 unless it names another")]

    @field_validator("json_schema")
    @classmethod
    def _schema_is_one(cls, schema: dict[str, Any]) -> dict[str, Any]:
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for

        try:
            validator_for(schema, default=Draft202012Validator).check_schema(schema)
        except SchemaError as error:
            raise ValueError(f"json_schema is no JSON Schema: {error.message}") from error
        return schema


class HttpGrader(GraderBase):
    """What a service of yours answers: docs/evaluation.md has the request and the response."""

    type: Literal["http"] = "http"
    url: Annotated[str, Field(pattern=r"^https?://", description="Gets POST requests with a JSON body")]
    batch_size: Annotated[Count, Field(le=1024, description="Completions in a request, at most")] = 32
    retries: Annotated[
        int, Field(ge=0, le=10, description="After a connection error, a time-out, 429 or 5xx; each waits twice as long")
    ] = 2


class PythonGrader(GraderBase):
    """What your function `grade(sample, item) -> float` returns. Only where the deployment allows it (MHPO_PYTHON_GRADERS)."""

    type: Literal["python"] = "python"
    source: Annotated[str, Field(min_length=1, max_length=65_536, description="Python that defines grade(sample, item)")]

    @field_validator("source")
    @classmethod
    def _defines_grade(cls, source: str) -> str:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ValueError(f"source is no Python: {error}") from error
        if not any(isinstance(node, ast.FunctionDef) and node.name == "grade" for node in tree.body):
            raise ValueError("source must define a function grade(sample, item)")
        return source


def check_formula(formula: str, names: set[str]) -> str:
    """The formula; raises ValueError where it cannot be computed from these names."""
    unknown = parse_formula(formula).names - names
    if unknown:
        raise ValueError(f"calculate_output names {', '.join(sorted(unknown))}; the graders are {', '.join(sorted(names))}")
    return formula


class MultiBase(GraderBase):
    """The value of a formula over named graders."""

    type: Literal["multi"] = "multi"
    calculate_output: Annotated[
        str,
        Field(
            min_length=1,
            max_length=1000,
            description="Numbers and names of `graders` with + - * / ^ ( ) and min, max, abs, floor, ceil, exp, sqrt, log",
        ),
    ]

    @model_validator(mode="after")
    def _formula_fits(self) -> "MultiBase":
        check_formula(self.calculate_output, set(getattr(self, "graders", {})))
        return self
