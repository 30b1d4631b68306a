"""The evaluation, readable top to bottom: read, sample everything at once, grade as it comes, write down."""

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from hashlib import blake2b, sha256
from itertools import groupby
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from transformers import AutoConfig

from evaluator.cache import ScoreCache, model_hash
from evaluator.config import Benchmark, EvaluationSpec, Sampling
from evaluator.contamination import contamination, overlaps, training_texts
from evaluator.grading import Graders, as_sample
from evaluator.journal import JOURNAL, Graded, Journal
from evaluator.problems import Rows, benchmark_rows
from evaluator.scores import score_benchmark
from trainer.config import Dataset
from trainer.images import image_bytes
from trainer.policy import load_tokenizer
from trainer.prompts import encode_prompts
from trainer.remote_code import is_trusted
from trainer.rollout.open import choose_device, open_sampler
from trainer.rollout.sampler import Finished, Sampler, SampleRequest, SamplingSettings, sample_seed
from trainer.run_folder import write_atomically
from trainer.strict import SpecError
from trainer.types import Problem

CONCURRENCY = 256  # completions that the engine works on at a time; the others wait in its queue
IMAGE_TOKENS = 4096  # that one image may become, beside its own token; a larger one is scaled down by the model's processor
Say = Callable[[str], None]
Result = dict[str, Any]  # a benchmark in result.json: BenchmarkScore, and what it is the score of


@dataclass(frozen=True, slots=True)
class Part:
    """One benchmark of the evaluation; `prompts[i]` are the token ids of `rows.problems[i]`'s prompt."""

    benchmark: Benchmark
    rows: Rows
    prompts: Sequence[tuple[int, ...]]
    images: Sequence[tuple[bytes, ...]]  # of each problem's prompt
    sampling: Sampling

    @property
    def name(self) -> str:
        return self.benchmark.name


@dataclass(frozen=True, slots=True)
class Wanted:
    """The samples of one problem that are not there yet."""

    part: Part
    problem: int  # place among the part's problems
    samples: tuple[int, ...]


def evaluate(spec: EvaluationSpec, folder: Path, say: Say) -> dict[str, Result]:
    """Scores the model on every benchmark and writes rows/<benchmark>.jsonl; returns the results by benchmark.

    What an earlier run of the same evaluation sampled is in the folder's journal and is not sampled again.
    Raises SpecError (the user's fault), EngineError.
    """
    if spec.resources.threads is not None:
        torch.set_num_threads(spec.resources.threads)
    (folder / "rows").mkdir(exist_ok=True)
    with Graders() as graders:
        parts = read(spec, graders)
        for part in parts:
            say(f"{part.name}: {len(part.rows.problems)} problems from {part.benchmark.path} ({part.rows.content_hash[:12]})")
        cache = None if spec.cache is None else ScoreCache(Path(spec.cache), model_hash(spec.model))
        kept = {part.name: found for part in parts if (found := from_cache(cache, spec, part, folder)) is not None}
        if kept:
            say(f"scored before, on the same rows with the same settings: {', '.join(kept)}")
        fresh = [part for part in parts if part.name not in kept]
        with Journal(folder / JOURNAL, identity(spec, parts)) as journal:
            sample(spec, fresh, graders, journal, say)
        scores = kept | {part.name: score(part, journal, folder) for part in fresh}
    for part in fresh:
        if cache is not None:
            cache.store(cache.key(spec, part.benchmark, part.rows.content_hash), scores[part.name], rows_file(folder, part))
    results = {part.name: result(part, scores[part.name], cached=part.name in kept) for part in parts}
    if spec.training is not None:
        add_contamination(spec.training, parts, results, say)
    for name, one in results.items():
        say(summary(name, one))
    return results


def read(spec: EvaluationSpec, graders: Graders) -> list[Part]:
    """Problems with their answers checked and their prompts encoded; before the engine starts, so that a bad row is cheap."""
    tokenizer = load_tokenizer(spec.model)
    parts = []
    for number, benchmark in enumerate(spec.benchmarks):
        place = f"benchmarks.{number}"
        rows = benchmark_rows(benchmark, place, spec.max_problems)
        graders.of(benchmark.grader).check_answers(rows.problems, f"{place}.answer_column", benchmark.path)
        prompts = encode_prompts(
            tokenizer, rows.problems, chat_template=benchmark.chat_template, system_prompt=benchmark.system_prompt, param=place
        )
        images = [image_bytes(problem, f"{place}.image_column") for problem in rows.problems]
        parts.append(Part(benchmark, rows, prompts, images, spec.sampling(benchmark)))
    check_context(spec, parts)
    return parts


def check_context(spec: EvaluationSpec, parts: Sequence[Part]) -> None:
    """Raises SpecError where prompt and completion together pass the model's context."""
    limit = context(spec)
    for number, part in enumerate(parts):
        longest, new = longest_prompt(part), part.sampling.max_new_tokens
        if limit is not None and longest + new > limit:
            place = "max_new_tokens" if spec.max_new_tokens is not None else f"benchmarks.{number}.sampling.max_new_tokens"
            raise SpecError(place, f"{new} and the longest prompt's {longest} tokens pass the model's context of {limit}")


def context(spec: EvaluationSpec) -> int | None:
    """The model's, in tokens; not every architecture has one."""
    model = spec.model
    config = AutoConfig.from_pretrained(model.path, revision=model.revision, trust_remote_code=is_trusted()).get_text_config()
    limit: int | None = getattr(config, "max_position_embeddings", None)
    return limit


def longest_prompt(part: Part) -> int:
    """Tokens of the longest prompt."""
    return max(map(len, part.prompts))


def identity(spec: EvaluationSpec, parts: Sequence[Part]) -> str:
    """What a journal is of: everything that a sample and its verdict depend on, down to the rows' contents."""
    document = spec.model_dump(mode="json", exclude={"resources", "cache", "training"})
    rows = {part.name: part.rows.content_hash for part in parts}
    return sha256(json.dumps([document, rows], sort_keys=True).encode()).hexdigest()


def sample(spec: EvaluationSpec, parts: Sequence[Part], graders: Graders, journal: Journal, say: Say) -> None:
    """Samples what the journal lacks, from one engine with all of it in flight, and grades it while the engine goes on."""
    wanted = list(missing(parts, journal))
    count = sum(len(one.samples) for one in wanted)
    total = sum(len(part.rows.problems) * part.sampling.samples for part in parts)
    if count < total:
        say(f"going on: {total - count} of {total} completions are there")
    if not wanted:
        return
    start = monotonic()
    sampler = open_engine(spec, parts, min(count, CONCURRENCY))
    try:
        say(f"{spec.engine} started in {monotonic() - start:.1f} s; sampling {count} completions")
        start, tokens, done = monotonic(), 0, total - count
        for finished in sampler.stream(list(requests(spec, wanted))):
            journal.add(graded(wanted, finished, graders))
            tokens += sum(len(completion.token_ids) for _, _, completion in finished)
            done += len(finished)
            say(f"{done} of {total} completions ({done / total:.0%}), {tokens / (monotonic() - start):.0f} tokens/s")
    finally:
        sampler.close()


def open_engine(spec: EvaluationSpec, parts: Sequence[Part], concurrency: int) -> Sampler:
    """The engine that serves every benchmark of the evaluation."""
    images = max(len(own) for part in parts for own in part.images)
    longest = max(longest_prompt(part) + part.sampling.max_new_tokens for part in parts) + images * IMAGE_TOKENS
    limit = context(spec)
    return open_sampler(
        spec.engine,
        spec.model,
        load_tokenizer(spec.model),
        max_model_len=longest if limit is None else min(longest, limit),
        concurrency=concurrency,
        device=choose_device(spec.resources),
        resources=spec.resources,
        images=images,
    )


def missing(parts: Sequence[Part], journal: Journal) -> Iterator[Wanted]:
    """What the journal lacks, benchmark after benchmark."""
    for part in parts:
        for place in range(len(part.rows.problems)):
            samples = tuple(i for i in range(part.sampling.samples) if (part.name, place, i) not in journal.graded)
            if samples:
                yield Wanted(part, place, samples)


def requests(spec: EvaluationSpec, wanted: Sequence[Wanted]) -> Iterator[tuple[SampleRequest, SamplingSettings]]:
    """One request a problem. A sample's seed depends on the spec's seed, the benchmark's name, the row and the sample alone."""
    for one in wanted:
        sampling = one.part.sampling
        seed, row = benchmark_seed(spec.seed, one.part.name), one.part.rows.problems[one.problem].index
        seeds = tuple(sample_seed(seed, 0, row, i) for i in one.samples)
        settings = SamplingSettings(sampling.max_new_tokens, sampling.temperature, sampling.top_p, spec.stop)
        yield SampleRequest(one.part.prompts[one.problem], seeds, one.part.images[one.problem]), settings


def benchmark_seed(seed: int, name: str) -> int:
    """A seed of the benchmark's own: row 3 of one must not draw the random numbers of row 3 of another."""
    return int.from_bytes(blake2b(f"{seed}/{name}".encode(), digest_size=8).digest(), "big") >> 1


def graded(wanted: Sequence[Wanted], finished: Sequence[Finished], graders: Graders) -> list[Graded]:
    """The verdicts on what the engine has finished, in the order of the benchmarks."""
    ordered = sorted(finished, key=lambda one: (one[0], one[1]))
    done: list[Graded] = []
    for _, alike in groupby(ordered, key=lambda one: wanted[one[0]].part.name):
        group = list(alike)
        items = [
            (wanted[n].problem, wanted[n].samples[i], wanted[n].part.rows.problems[wanted[n].problem], completion)
            for n, i, completion in group
        ]
        done += graders.grade(wanted[group[0][0]].part.benchmark, items)
    return done


def score(part: Part, journal: Journal, folder: Path) -> Result:
    """The score of a benchmark whose samples are all in the journal, its rows written."""
    samples = range(part.sampling.samples)
    groups = [[journal.graded[part.name, place, i] for i in samples] for place in range(len(part.rows.problems))]
    lines = [row(problem, group) for problem, group in zip(part.rows.problems, groups, strict=True)]
    text = "".join(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n" for line in lines)
    write_atomically(rows_file(folder, part), text)
    return asdict(score_benchmark([[as_sample(one) for one in group] for group in groups]))


def from_cache(cache: ScoreCache | None, spec: EvaluationSpec, part: Part, folder: Path) -> Result | None:
    """The score that the same evaluation of the same model and rows had, its rows copied here."""
    if cache is None:
        return None
    key = cache.key(spec, part.benchmark, part.rows.content_hash)
    kept = cache.load(key)
    if kept is not None:
        shutil.copyfile(cache.rows(key), rows_file(folder, part))
    return kept


def result(part: Part, score: Result, *, cached: bool) -> Result:
    """A score with what it is of: which rows, drawn how."""
    return score | {
        "content_hash": part.rows.content_hash,
        "sampling": part.sampling.model_dump(mode="json"),
        "cached": cached,
        "contamination": None,
    }


def add_contamination(training: Dataset, parts: Sequence[Part], results: dict[str, Result], say: Say) -> None:
    """Says in each result how many of its problems the training set holds; one that is gone by now costs that alone."""
    try:
        found = iter(overlaps([text for part in parts for text in part.rows.texts], training_texts(training)))
    except SpecError as error:
        say(f"the training set cannot be compared with: {error}")
        return
    for part in parts:
        own = [next(found) for _ in part.rows.texts]
        ids = [problem.id for problem in part.rows.problems]
        told = contamination(ids, own, results[part.name]["problem_scores"], training.path)
        results[part.name]["contamination"] = asdict(told)


def rows_file(folder: Path, part: Part) -> Path:
    """One line a problem with all its completions."""
    return folder / "rows" / f"{part.name}.jsonl"


def row(problem: Problem, group: Sequence[Graded]) -> dict[str, Any]:
    """One problem as the rows file holds it; `problem` is the prompt, before a chat template."""
    keys = ("text", "tokens", "finish_reason", "score", "error")
    return {
        "problem_id": problem.id,
        "problem": problem.prompt,
        "answer": problem.answer,
        "completions": [{**{key: getattr(one, key) for key in keys}, "given": one.answer} for one in group],
    }


def summary(name: str, score: Result) -> str:
    """One line for the log."""
    bounds = "" if score["ci_low"] is None else f" [{score['ci_low']:.3f}, {score['ci_high']:.3f}]"
    n, held = score["n"], score["contamination"]
    told = f", the training set holds {held['contaminated']} of its {held['problems']} problems" if held else ""
    return (
        f"{name}: avg@{n} {score['avg']:.3f}{bounds}, maj@{n} {score['maj']:.3f}, pass@{n} {score['pass_at'][str(n)]:.3f}, "
        f"{score['mean_tokens']:.0f} tokens, {score['truncated']:.1%} cut, {score['no_answer']:.1%} without an answer, "
        f"{score['grader_errors']} grader errors{told}"
    )
