"""The evaluation, readable top to bottom: read, sample everything at once, grade, write down."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from transformers import AutoConfig

from evaluator.config import Benchmark, EvaluationSpec
from evaluator.problems import benchmark_problems
from evaluator.scores import BenchmarkScore, Sample, score_benchmark
from trainer.config import MathGrader
from trainer.policy import load_tokenizer
from trainer.prompts import encode_prompts
from trainer.remote_code import is_trusted
from trainer.rewards.answer import last_box, without_thinking
from trainer.rewards.score import Scorer
from trainer.rollout.open import choose_device, open_sampler
from trainer.rollout.sampler import SampleRequest, SamplingSettings, sample_seed
from trainer.run_folder import write_atomically
from trainer.strict import SpecError
from trainer.types import Completion, Problem, Score

CONCURRENCY = 256  # completions that the engine works on at a time; the others wait in its queue
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of the evaluation; `prompts[i]` are the token ids of `problems[i]`'s prompt."""

    benchmark: Benchmark
    problems: Sequence[Problem]
    prompts: Sequence[tuple[int, ...]]


def evaluate(spec: EvaluationSpec, folder: Path, say: Say) -> dict[str, BenchmarkScore]:
    """Scores the model on every benchmark and writes rows/<benchmark>.jsonl; returns the scores by benchmark.

    Raises SpecError (the user's fault), EngineError.
    """
    if spec.resources.threads is not None:
        torch.set_num_threads(spec.resources.threads)
    parts = read(spec)
    for part in parts:
        say(f"{part.benchmark.name}: {len(part.problems)} problems from {part.benchmark.path}")
    completions = iter(sample(spec, parts, say))
    scores = {}
    for part in parts:
        own = [next(completions) for _ in part.problems]
        graded = grade(part, own)
        write_rows(folder, part, own, graded)
        scores[part.benchmark.name] = score_benchmark([samples(part.benchmark, *one) for one in zip(own, graded, strict=True)])
        say(summary(part.benchmark.name, scores[part.benchmark.name]))
    return scores


def read(spec: EvaluationSpec) -> list[Part]:
    """Problems with their answers checked and their prompts encoded; before the engine starts, so that a bad row is cheap."""
    tokenizer = load_tokenizer(spec.model)
    parts = []
    for number, benchmark in enumerate(spec.benchmarks):
        place = f"benchmarks.{number}"
        problems = benchmark_problems(benchmark, place, spec.max_problems)
        with Scorer([benchmark.grader]) as scorer:
            scorer.check_answers(problems, f"{place}.answer_column", benchmark.path)
        prompts = encode_prompts(
            tokenizer, problems, chat_template=benchmark.chat_template, system_prompt=benchmark.system_prompt, param=place
        )
        parts.append(Part(benchmark, problems, prompts))
    check_context(spec, longest_prompt(parts))
    return parts


def longest_prompt(parts: Sequence[Part]) -> int:
    """Tokens of the longest prompt."""
    return max(len(prompt) for part in parts for prompt in part.prompts)


def check_context(spec: EvaluationSpec, longest: int) -> None:
    """Raises SpecError where prompt and completion together pass the model's context."""
    config = AutoConfig.from_pretrained(
        spec.model.path, revision=spec.model.revision, trust_remote_code=is_trusted()
    ).get_text_config()
    limit = getattr(config, "max_position_embeddings", None)  # not every architecture has one
    if limit is not None and longest + spec.max_new_tokens > limit:
        message = f"{spec.max_new_tokens} and the longest prompt's {longest} tokens pass the model's context of {limit}"
        raise SpecError("max_new_tokens", message)


def sample(spec: EvaluationSpec, parts: Sequence[Part], say: Say) -> list[tuple[Completion, ...]]:
    """`spec.samples` completions of each problem, benchmark after benchmark, from one engine with all of them in flight."""
    requests = list(sample_requests(spec, parts))
    total = len(requests) * spec.samples
    start = monotonic()
    sampler = open_sampler(
        spec.engine,
        spec.model,
        load_tokenizer(spec.model),
        max_model_len=longest_prompt(parts) + spec.max_new_tokens,
        concurrency=min(total, CONCURRENCY),
        device=choose_device(spec.resources),
        resources=spec.resources,
    )
    try:
        say(f"{spec.engine} started in {monotonic() - start:.1f} s; sampling {total} completions")
        start = monotonic()
        completions = sampler.generate(requests, SamplingSettings(spec.max_new_tokens, spec.temperature, spec.top_p, spec.stop))
    finally:
        sampler.close()
    seconds, tokens = monotonic() - start, sum(len(one.token_ids) for group in completions for one in group)
    say(f"sampled {tokens} tokens in {seconds:.1f} s: {tokens / seconds:.0f} tokens/s")
    return completions


def sample_requests(spec: EvaluationSpec, parts: Sequence[Part]) -> Iterator[SampleRequest]:
    """One request a problem. A sample's seed depends on the spec's seed, the benchmark's name, the row and the sample alone."""
    for part in parts:
        seed = benchmark_seed(spec.seed, part.benchmark.name)
        for problem, prompt in zip(part.problems, part.prompts, strict=True):
            yield SampleRequest(prompt, tuple(sample_seed(seed, 0, problem.index, i) for i in range(spec.samples)))


def benchmark_seed(seed: int, name: str) -> int:
    """A seed of the benchmark's own: row 3 of one must not draw the random numbers of row 3 of another."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big") >> 1


def grade(part: Part, completions: Sequence[tuple[Completion, ...]]) -> list[list[Score]]:
    """The scores of each problem's completions."""
    items = [(problem, one) for problem, group in zip(part.problems, completions, strict=True) for one in group]
    with Scorer([part.benchmark.grader]) as scorer:
        graded = iter(scorer.score(items))
    return [[next(graded) for _ in group] for group in completions]


def samples(benchmark: Benchmark, completions: Sequence[Completion], scores: Sequence[Score]) -> list[Sample]:
    """One problem's completions as the statistics see them."""
    return [
        Sample(
            score=own_score(score),
            tokens=len(completion.token_ids),
            truncated=completion.finish_reason == "length",
            answered=answered(benchmark, completion.text),
            failed=bool(score.errors),
        )
        for completion, score in zip(completions, scores, strict=True)
    ]


def own_score(score: Score) -> float:
    """What the benchmark's one grader gave, its weight left out; 0 where it failed."""
    return sum(score.by_grader.values())


def answered(benchmark: Benchmark, text: str) -> bool:
    """Whether there is an answer to grade: a box for the math grader, any text for the others."""
    if isinstance(benchmark.grader, MathGrader):
        return last_box(without_thinking(text)) is not None
    return bool(text.strip())


def write_rows(
    folder: Path, part: Part, completions: Sequence[tuple[Completion, ...]], scores: Sequence[Sequence[Score]]
) -> None:
    """rows/<benchmark>.jsonl: one line a problem with all its completions."""
    rows = folder / "rows"
    rows.mkdir(exist_ok=True)
    lines = [row(*one) for one in zip(part.problems, completions, scores, strict=True)]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    write_atomically(rows / f"{part.benchmark.name}.jsonl", text)


def row(problem: Problem, completions: Sequence[Completion], scores: Sequence[Score]) -> dict[str, Any]:
    """One problem as the rows file holds it; `problem` is the prompt, before a chat template."""
    return {
        "problem_id": problem.id,
        "problem": problem.prompt,
        "answer": problem.answer,
        "completions": [
            {
                "text": completion.text,
                "tokens": len(completion.token_ids),
                "finish_reason": completion.finish_reason,
                "score": own_score(score),
                "error": next(iter(score.errors.values()), None),
            }
            for completion, score in zip(completions, scores, strict=True)
        ],
    }


def summary(name: str, score: BenchmarkScore) -> str:
    """One line for the log."""
    bounds = "" if score.ci_low is None or score.ci_high is None else f" [{score.ci_low:.3f}, {score.ci_high:.3f}]"
    return (
        f"{name}: avg@{score.n} {score.avg:.3f}{bounds}, pass@{score.n} {score.pass_at[str(score.n)]:.3f}, "
        f"{score.mean_tokens:.0f} tokens, {score.truncated:.1%} cut, {score.no_answer:.1%} without an answer, "
        f"{score.grader_errors} grader errors"
    )
