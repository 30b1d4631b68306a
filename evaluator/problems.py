"""The problems of a benchmark, and the hash that says which rows they are. Torch-free."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from evaluator.config import Benchmark
from trainer.data import load_problems, render_prompt
from trainer.strict import SpecError
from trainer.types import Image, Problem

PLAIN = "{problem}"


@dataclass(frozen=True, slots=True)
class Rows:
    """A benchmark's problems with their prompts made, their texts before that, and the hash of exactly these rows."""

    problems: Sequence[Problem]
    texts: Sequence[str]
    content_hash: str


def benchmark_rows(benchmark: Benchmark, param: str, limit: int | None = None) -> Rows:
    """The first `limit` problems, or all. Raises SpecError whose `param` begins with the given one.

    A benchmark with a `content_hash` is refused where its rows, all of them, have another.
    """
    bare = load_problems(benchmark.model_copy(update={"prompt_template": PLAIN}), param)
    if benchmark.content_hash is not None and (found := content_hash(bare)) != benchmark.content_hash:
        message = f"the rows of {benchmark.path} are not those of {benchmark.name!r}: their hash is {found}"
        raise SpecError(f"{param}.content_hash", message)
    bare = bare[:limit]
    prompts = [render_prompt(benchmark.prompt_template, problem.prompt, problem.choices) for problem in bare]
    problems = [replace(problem, prompt=prompt) for problem, prompt in zip(bare, prompts, strict=True)]
    return Rows(problems, [problem.prompt for problem in bare], content_hash(bare))


def content_hash(bare: Sequence[Problem]) -> str:
    """SHA-256 of the problems' texts, answers, options and images in their order: not of ids, prompts or other columns."""
    digest = sha256()
    for problem in bare:
        images = [_image_digest(image) for image in problem.images]
        row = [problem.prompt, problem.answer, *([[list(problem.choices), images]] if problem.choices or images else [])]
        digest.update(json.dumps(row, ensure_ascii=True).encode() + b"\n")
    return digest.hexdigest()


def _image_digest(image: Image) -> str:
    """Of the file's bytes; a URL stands for itself."""
    if isinstance(image, str) and not Path(image).is_file():
        return image
    return sha256(image if isinstance(image, bytes) else Path(image).read_bytes()).hexdigest()
