"""Named benchmarks, and how a name or a path in a spec becomes an entry. Torch-free: the API reads it.

Rows are fetched from the Hugging Face hub at scoring time, or read from `MHPO_BENCHMARK_DIR/<name>.jsonl` where that file
exists (columns `problem` and `answer`; `image` and `choices` where there are some). No problem text is kept in this repository.
"""

import os
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

from evaluator.config import Benchmark, EvaluationSpec, Sampling
from trainer.config import Dataset, JobSpec, Model
from trainer.grader_config import ChoiceGrader
from trainer.strict import SpecError

BENCHMARK_DIR = "MHPO_BENCHMARK_DIR"

# The instruction that the Qwen2.5-Math, DeepSeek-R1 and MathArena evaluations share.
BOXED_PROMPT = "{problem}\n\nPlease reason step by step, and put your final answer within \\boxed{}."

CHOICE_PROMPT = BOXED_PROMPT.replace("{problem}", "{problem}{choices}")

# Avg@32 is the MHPO paper's (arXiv 2603.16929); temperature, top_p and 32,768 tokens are DeepSeek-R1's (arXiv 2501.12948).
AVG_32 = Sampling(samples=32, temperature=0.6, top_p=0.95, max_new_tokens=32_768)
ONE_SAMPLE = Sampling(samples=1, temperature=0.0, top_p=1.0, max_new_tokens=4096)
TRAINING_SET = Sampling(samples=1, temperature=0.6, top_p=0.95, max_new_tokens=32_768)

# Revisions are the commits that public evaluation code pins; HMMT and DAPO-Math have no single one and are left at the branch
# head, which every score's content_hash makes up for.
_NAMED = (
    Benchmark(
        name="aime24",
        path="HuggingFaceH4/aime_2024",
        revision="2fe88a2f1091d5048c0f36abc874fb997b3dd99a",
        split="train",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=AVG_32,
        licence="none stated; problems (c) MAA",
    ),
    Benchmark(
        name="aime25",
        path="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=AVG_32,
        licence="Apache-2.0; problems (c) MAA",
    ),
    Benchmark(
        name="amc23",
        path="math-ai/amc23",
        revision="80815d37005feb82cd7f8fbc6901d5d3eff43057",
        problem_column="question",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=AVG_32,
        licence="none stated; problems (c) MAA",
    ),
    Benchmark(
        name="math500",
        path="HuggingFaceH4/MATH-500",
        revision="6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=AVG_32,
        licence="MIT (MATH, PRM800K)",
    ),
    Benchmark(
        name="hmmt25",
        path="MathArena/hmmt_feb_2025",
        split="train",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=AVG_32,
        licence="CC-BY-NC-SA-4.0; problems (c) HMMT",
    ),
    Benchmark(
        name="gsm8k",
        path="openai/gsm8k",
        subset="main",
        revision="740312add88f781978c0658806c59bc2815b9866",
        problem_column="question",
        answer_after="####",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=Sampling(samples=8, temperature=0.6, top_p=0.95, max_new_tokens=32_768),
        licence="MIT",
    ),
    Benchmark(
        name="gsm8k_train",
        path="openai/gsm8k",
        subset="main",
        split="train",
        revision="740312add88f781978c0658806c59bc2815b9866",
        problem_column="question",
        answer_after="####",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=TRAINING_SET,
        licence="MIT",
    ),
    Benchmark(
        name="dapo_math_17k",
        path="open-r1/DAPO-Math-17k-Processed",
        subset="all",
        split="train",
        problem_column="prompt",
        answer_column="solution",
        prompt_template=BOXED_PROMPT,
        chat_template=True,
        sampling=TRAINING_SET,
        licence="Apache-2.0",
    ),
    Benchmark(
        name="mathvision",
        path="MathLLMs/MathVision",
        split="testmini",
        problem_column="question",
        choices_column="options",
        image_column="decoded_image",
        prompt_template=CHOICE_PROMPT,
        chat_template=True,
        grader=ChoiceGrader(),
        sampling=ONE_SAMPLE,
        licence="MIT",
    ),
    Benchmark(
        name="mathverse",
        path="AI4Math/MathVerse",
        subset="testmini",
        split="testmini",
        problem_column="question",
        image_column="image",
        prompt_template=CHOICE_PROMPT,
        chat_template=True,
        grader=ChoiceGrader(),
        sampling=ONE_SAMPLE,
        licence="MIT",
    ),
    Benchmark(
        name="mathvista",
        path="AI4Math/MathVista",
        split="testmini",
        problem_column="question",
        choices_column="choices",
        image_column="decoded_image",
        prompt_template=CHOICE_PROMPT,
        chat_template=True,
        grader=ChoiceGrader(),
        sampling=ONE_SAMPLE,
        licence="CC-BY-SA-4.0; not to be trained on",
    ),
    Benchmark(
        name="geometry3k",
        path="hiyouga/geometry3k",
        image_column="images",
        prompt_template=CHOICE_PROMPT,
        chat_template=True,
        grader=ChoiceGrader(),
        sampling=ONE_SAMPLE,
        licence="MIT",
    ),
)


def known_benchmarks() -> tuple[Benchmark, ...]:
    """The named benchmarks; one that lies in `MHPO_BENCHMARK_DIR` points at its file there."""
    return tuple(_local(benchmark) for benchmark in _NAMED)


def find_benchmark(name_or_path: str, param: str | None = None, registered: Sequence[Benchmark] = ()) -> Benchmark:
    """The entry of a known or registered name, or one made for a JSONL or parquet file and named after its stem.

    Raises SpecError at `param` for a file that is not there and for an unknown name, with the nearest known one.
    """
    known = {benchmark.name: benchmark for benchmark in (*registered, *known_benchmarks())}
    if name_or_path in known:
        return known[name_or_path]
    if name_or_path.endswith((".jsonl", ".parquet")):
        return _of_file(Path(name_or_path), param)
    near = get_close_matches(name_or_path, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}, or the path of a .jsonl or .parquet file"
    raise SpecError(param, f"no benchmark is named {name_or_path!r}; {hint}")


def with_prompt_of(benchmark: Benchmark, dataset: Dataset) -> Benchmark:
    """The benchmark asked in the words of a job's training prompts."""
    return benchmark.model_copy(
        update={
            "prompt_template": dataset.prompt_template,
            "chat_template": dataset.chat_template,
            "system_prompt": dataset.system_prompt,
        }
    )


def evaluation_of(job: JobSpec, model: Model, registered: Sequence[Benchmark] = (), cache: str | None = None) -> EvaluationSpec:
    """What scores `model`, the base or a checkpoint of `job`, as the job's `evaluation` section says.

    The prompts are those that the job trains on, so that the score is of the behaviour that is trained.
    """
    wanted = job.evaluation
    places = (f"evaluation.benchmarks.{number}" for number in range(len(wanted.benchmarks)))
    found = (find_benchmark(name, place, registered) for name, place in zip(wanted.benchmarks, places, strict=True))
    return EvaluationSpec(
        model=model,
        benchmarks=tuple(with_prompt_of(benchmark, job.dataset) for benchmark in found),
        engine=job.rollout.engine,
        samples=wanted.samples,
        max_problems=wanted.max_problems,
        temperature=wanted.temperature,
        top_p=wanted.top_p,
        max_new_tokens=wanted.max_new_tokens or job.rollout.max_new_tokens,
        stop=job.rollout.stop,
        seed=job.seed,
        training=job.dataset,
        cache=cache,
        resources=job.resources.model_copy(update={"engine_sleeps": False}),
    )


def _local(benchmark: Benchmark) -> Benchmark:
    folder = os.environ.get(BENCHMARK_DIR)
    if not folder or not (file := Path(folder) / f"{benchmark.name}.jsonl").is_file():
        return benchmark
    plain = {"path": str(file), "revision": None, "subset": None, "answer_after": None, "content_hash": None}
    if benchmark.image_column is not None:
        plain |= {"image_column": "image", "choices_column": "choices"}
    return benchmark.model_copy(update=plain | {"problem_column": "problem", "answer_column": "answer"})


def _of_file(file: Path, param: str | None) -> Benchmark:
    if not file.is_file():
        raise SpecError(param, f"there is no file {file}")
    try:
        return Benchmark.parse({"name": file.stem, "path": str(file)})
    except SpecError as error:
        raise SpecError(param, f"a benchmark is named after its file: {error.message}") from error
