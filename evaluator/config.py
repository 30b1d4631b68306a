"""The evaluation spec: torch-free, strict, frozen."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.config import Grader, MathGrader, Model, Resources
from trainer.strict import Count, Listed, NonNegative, Strict


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
    prompt_template: str = "{problem}"
    chat_template: bool = False
    system_prompt: str | None = None
    grader: Grader = MathGrader()
    licence: str | None = None


class EvaluationSpec(Strict):
    """One model scored on benchmarks; written to `config.json` of the evaluation's folder."""

    model: Model
    benchmarks: Annotated[Listed[tuple[Benchmark, ...]], Field(min_length=1)]
    engine: Literal["vllm", "transformers"] = "vllm"
    samples: Annotated[Count, Field(description="Completions a problem")] = 8
    max_problems: Annotated[Count | None, Field(description="Only the first so many problems of each benchmark")] = None
    temperature: NonNegative = 1.0
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    max_new_tokens: Count = 512
    stop: Listed[tuple[str, ...]] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    resources: Resources = Resources()

    @model_validator(mode="after")
    def _names_differ(self) -> "EvaluationSpec":
        names = [benchmark.name for benchmark in self.benchmarks]
        if len(set(names)) < len(names):
            raise ValueError(f"benchmarks: two have one name ({', '.join(names)})")
        return self
