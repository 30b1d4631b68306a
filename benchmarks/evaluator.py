"""Tokens a second of an evaluation beside plain `LLM.generate` on the same prompts with the same settings, in the same run.

    python -m benchmarks.evaluator [--problems 128] [--samples 8] [--tokens 64] [--rounds 2]

Both start their own engine with the same options, in turn, `rounds` times; the engine's start is not counted, grading and the
journal are. The model is the first run's with random weights: the smaller the model, the more everything else weighs.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from evaluator.config import EvaluationSpec
from trainer.tasks import sums

_RATE = re.compile(r"\((\d+)%\), (\d+) tokens/s")


def model(folder: Path) -> Path:
    """The first run's model with random weights."""
    from trainer.first_run import character_tokenizer, small_qwen3

    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def of_evaluation(config: Path) -> float:
    """Tokens a second of `python -m evaluator`, as it says."""
    command = [sys.executable, "-m", "evaluator", str(config)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    share, rate = _RATE.findall(output)[-1]
    assert share == "100"
    return float(rate)


def of_plain_generate(config: Path) -> float:
    """Tokens a second of `LLM.generate` in a process of its own."""
    from trainer.rollout.open import choose_device
    from trainer.rollout.vllm_sampler import engine_environment

    device = choose_device(EvaluationSpec.parse(json.loads(config.read_text())).resources)
    command = [sys.executable, "-m", "benchmarks.evaluator", "--plain", str(config)]
    output = subprocess.run(command, check=True, capture_output=True, text=True, env=engine_environment(device)).stdout
    return float(output.splitlines()[-1])


def plain(config: Path) -> float:
    """One call of `LLM.generate` on every prompt and sample of the evaluation."""
    from vllm import LLM, SamplingParams

    from evaluator.evaluate import CONCURRENCY, longest_prompt, missing, read, requests
    from evaluator.grading import Graders
    from evaluator.journal import Journal
    from trainer.rollout.open import choose_device
    from trainer.rollout.vllm_sampler import engine_options, sampling_arguments

    spec = EvaluationSpec.parse(json.loads(config.read_text()))
    with Graders() as graders:
        parts = read(spec, graders)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "none", "") as journal:
        asked = list(requests(spec, list(missing(parts, journal))))
    options = engine_options(
        spec.model,
        max_model_len=max(longest_prompt(part) + part.sampling.max_new_tokens for part in parts),
        concurrency=CONCURRENCY,
        device=choose_device(spec.resources),
        resources=spec.resources,
    )
    llm = LLM(**options)
    prompts = [{"prompt_token_ids": list(request.prompt_token_ids)} for request, _ in asked for _ in request.seeds]
    settings = [
        SamplingParams(**sampling_arguments(one), seed=seed, logprobs=0, detokenize=False)
        for request, one in asked
        for seed in request.seeds
    ]
    start = perf_counter()
    outputs = llm.generate(prompts, settings, use_tqdm=False)
    return sum(len(output.outputs[0].token_ids) for output in outputs) / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluator", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--problems", type=int, default=128)
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.plain:
        print(plain(arguments.plain))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "sums.jsonl"
        sums.write_problems(rows, arguments.problems, seed=1)
        spec: dict[str, Any] = {
            "model": {"path": str(model(Path(folder) / "model"))},
            "benchmarks": [{"name": "sums", "path": str(rows)}],
            "samples": arguments.samples,
            "max_new_tokens": arguments.tokens,
        }
        config = Path(folder) / "config.json"
        config.write_text(json.dumps(spec))
        pairs = [(of_evaluation(config), of_plain_generate(config)) for _ in range(arguments.rounds)]
    evaluation, generate = (median(side) for side in zip(*pairs, strict=True))
    cores, completions = len(os.sched_getaffinity(0)), arguments.problems * arguments.samples
    print(f"{cores} cores, {completions} completions of up to {arguments.tokens} tokens, {arguments.rounds} rounds")
    print(f"evaluation          {evaluation:8.0f} tokens/s")
    print(f"plain LLM.generate  {generate:8.0f} tokens/s")
    print(f"ratio               {evaluation / generate:8.2f}")


if __name__ == "__main__":
    main()
