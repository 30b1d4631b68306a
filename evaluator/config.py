"""The evaluation spec: torch-free, strict, frozen."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config import Dataset, Grader, MathGrader, Model, Resources
from trainer.strict import Count, Listed, NonNegative, Strict


class Sampling(Strict):
    """How a benchmark's completions are drawn where a spec does not say otherwise."""

    samples: Annotated[Count, Field(description="Completions a problem")] = 8
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512


class Benchmark(Strict):
    """A set of problems: local JSONL or parquet, or a hub id."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    path: Annotated[str, Field(min_length=1)]
    revision: str | None = None
    subset: Annotated[str | None, Field(description="Configuration of a hub id that has several")] = None
    split: str = "test"
    problem_column: str = "problem"
    answer_column: str = "answer"
    answer_after: Annotated[
        str | None,
        Field(min_length=1, description="The answer is what follows the last of these in its column; GSM8K's is ####"),
    ] = None
    choices_column: Annotated[str | None, Field(description="Column with the list of a problem's options")] = None
    image_column: Annotated[str | None, Field(description="Column with a problem's image or images")] = None
    prompt_template: Annotated[str, Field(description="{problem}, and {choices} where the options go")] = "{problem}"
    chat_template: bool = False
    system_prompt: str | None = None
    grader: Grader = MathGrader()
    sampling: Sampling = Sampling()
    content_hash: Annotated[
        str | None, Field(pattern=r"^[0-9a-f]{64}$", description="SHA-256 of all its rows; other rows are refused")
    ] = None
    licence: str | None = None

    @model_validator(mode="after")
    def _prompt_is_complete(self) -> "Benchmark":
        if "{problem}" not in self.prompt_template:
            raise ValueError("prompt_template must contain {problem}")
        return self


class EvaluationSpec(Strict):
    """One model scored on benchmarks; written to `config.json` of the evaluation's folder."""

    model: Model
    benchmarks: Annotated[Listed[tuple[Benchmark, ...]], Field(min_length=1)]
    engine: Literal["vllm", "transformers"] = "vllm"
    samples: Annotated[Count | None, Field(description="Completions a problem; null: each benchmark's own number")] = None
    max_problems: Annotated[Count | None, Field(description="Only the first so many problems of each benchmark")] = None
    temperature: Annotated[NonNegative | None, Field(description="null: each benchmark's own")] = None
    top_p: Annotated[float | None, Field(gt=0, le=1, description="null: each benchmark's own")] = None
    max_new_tokens: Annotated[Count | None, Field(description="null: each benchmark's own")] = None
    stop: Listed[tuple[str, ...]] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    training: Annotated[
        Dataset | None, Field(description="What the model was trained on: how much of each benchmark it holds is reported")
    ] = None
    cache: Annotated[
        str | None,
        Field(description="Folder where scores are kept for the next evaluation of the same model, rows and settings"),
    ] = None
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _names_differ(self) -> "EvaluationSpec":
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"benchmarks: two have one name ({', '.join(names)})")
        return self

    def sampling(self, benchmark: Benchmark) -> Sampling:
        """How the benchmark's completions are drawn."""
        asked = {name: getattr(self, name) for name in Sampling.model_fields}
        return benchmark.sampling.model_copy(update={name: value for name, value in asked.items() if value is not None})
