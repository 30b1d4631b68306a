"""Steps a second of the first run, and where a step's time goes, beside the arithmetic floor measured in the same run.

    python -m benchmarks.first_run [--engine vllm|transformers] [--learners N] [--steps N] [--data-dir .mhpo]

The floor is the time that the step's matrix products alone would take: 2 x parameters x tokens for the rollout, 6 x for the
update, at the rate that float32 products of the model's own shape reach on this machine before and after the run. Counted are
all tokens. The learner, and on a CPU the transformers sampler, computes a token once for all completions of a prompt that are
alike up to it: a second floor counts of theirs these alone.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, median

from trainer.clock import PARTS
from trainer.config import JobSpec, read_document
from trainer.first_run import prepare
from trainer.run_folder import read_lines

ROOT = Path(__file__).parents[1]
PARAMETERS = 607_296
WARM_UP_STEPS = 5  # left out: the engine's and the graders' first calls


def first_run_spec(data_dir: Path, engine: str, steps: int, learners: int = 1) -> JobSpec:
    """examples/first-run.toml with its files in `data_dir`; the base model is made where it is missing."""
    folder = data_dir.resolve() / "first-run"
    prepare(folder, say=lambda line: print(line, flush=True))
    document = read_document(ROOT / "examples" / "first-run.toml")
    document["steps"] = steps
    document["model"]["path"] = str(folder / "base")
    document["dataset"]["path"] = str(folder / "train.jsonl")
    document["evaluation"]["benchmarks"] = []
    document["rollout"]["engine"] = engine
    document.setdefault("resources", {})["learners"] = learners
    return JobSpec.parse(document)


def matmul_rate(rows: int = 6400, inner: int = 128, outer: int = 384, repeat: int = 400) -> float:
    """FLOP a second of float32 products of the model's MLP shape."""
    import torch

    left, right = torch.randn(rows, inner), torch.randn(inner, outer)
    for _ in range(5):
        left @ right
    start = time.perf_counter()
    for _ in range(repeat):
        left @ right
    return 2 * rows * inner * outer * repeat / (time.perf_counter() - start)


def run(spec: JobSpec, folder: Path) -> tuple[list[dict[str, float]], float]:
    """Metrics of each step, and the wall time of `python -m trainer` from start to end, seconds."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(spec.model_dump_json())
    start = time.perf_counter()
    with (folder / "trainer.log").open("wb") as log:
        subprocess.run([sys.executable, "-m", "trainer", str(folder)], check=True, stdout=log, stderr=log)
    return [line["metrics"] for line in read_lines(folder / "metrics.jsonl")], time.perf_counter() - start


def distinct_share(folder: Path) -> float:
    """The share of a run's tokens that is left where completions of a prompt that are alike up to a token count it once."""
    tokens, distinct = 0, 0
    for file in (folder / "samples").iterdir():
        for group in read_lines(file):
            if group["step"] <= WARM_UP_STEPS:
                continue
            ends = {"stop": "$", "length": ""}  # a character is a token, and the end is one
            texts = [group["prompt"] + one["text"] + ends[one["finish_reason"]] for one in group["completions"]]
            tokens += sum(map(len, texts))
            distinct += len({text[: i + 1] for text in texts for i in range(len(text))})
    return distinct / tokens


def report(steps: list[dict[str, float]], wall: float, rate: float, distinct: float, engine: str) -> None:
    """The table."""
    timed = steps[WARM_UP_STEPS:]
    seconds = median(step["step_time"] for step in timed)
    completion_tokens = fmean(step["completions/mean_length"] for step in timed) * 128
    tokens = completion_tokens + 128 * 8  # prompts of 6 to 12 characters
    floors = {"rollout": 2 * PARAMETERS * tokens / rate, "learner": 6 * PARAMETERS * tokens / rate}
    print(f"{len(steps)} steps in {wall:.1f} s of wall time, engine start included; {os.cpu_count()} cores")
    print(f"a step: {seconds:.3f} s ({1 / seconds:.2f} steps/s), {completion_tokens / seconds:,.0f} completion tokens/s")
    floor = sum(floors.values())
    print(f"floor: {floor:.3f} s at {rate / 1e9:.0f} GFLOP/s; a step takes {seconds / floor:.2f} times that")
    once = distinct * floors["learner"] + (floors["rollout"] if engine == "vllm" else distinct * floors["rollout"])
    print(f"with the {distinct:.0%} distinct tokens that are computed once: {once:.3f} s; {seconds / once:.1f} times that")
    for part in (*PARTS, "other"):
        spent = median(step[f"time/{part}"] for step in timed)
        over = f", {spent / floors[part]:.1f} times its floor" if part in floors else ""
        print(f"  {part:8} {spent:.3f} s  {spent / seconds:6.1%}{over}")
    last = [step["reward"] for step in steps[-10:]]
    print(f"reward: first step {steps[0]['reward']:.3f}, mean of the last {len(last)} {fmean(last):.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_run", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="vllm")
    parser.add_argument("--learners", type=int, default=1)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".mhpo")
    arguments = parser.parse_args()
    spec = first_run_spec(arguments.data_dir, arguments.engine, arguments.steps, arguments.learners)
    before = matmul_rate()
    with tempfile.TemporaryDirectory() as folder:
        steps, wall = run(spec, Path(folder) / "run")
        distinct = distinct_share(Path(folder) / "run")
    report(steps, wall, (before + matmul_rate()) / 2, distinct, arguments.engine)


if __name__ == "__main__":
    main()
