"""What a run of some length leaves in the record."""

import json
import math
import random
from typing import Any

from sqlalchemy import func, select, update

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_events, store_metrics, store_samples
from api.models import Evaluation, Json, Status
from api.record import Claim
from api.settings import settings


def metrics_of(step: int, rng: random.Random) -> Json:
    """A step as MHPO's runs look: the reward rises and levels off."""
    reward = 0.9 / (1 + math.exp((40 - step) / 12)) + rng.gauss(0, 0.02)
    length = 60 + step * 0.4 + rng.gauss(0, 3)
    rollout, learner = 1.6 + rng.random() * 0.3, 0.9 + rng.random() * 0.2
    return {
        "reward": reward,
        "reward_std": 0.32 - 0.002 * step,
        "rewards/exact/mean": reward,
        "rewards/short/mean": 0.5 + rng.gauss(0, 0.03),
        "frac_reward_zero_std": min(0.9, 0.1 + step * 0.006),
        "grad_norm": 0.3 + rng.random() * 0.1,
        "grad_norm/on_policy": 1.1 + rng.random() * 0.3,
        "ratio/mean": 1 + rng.gauss(0, 0.002),
        "ratio/min": 0.7 - rng.random() * 0.1,
        "ratio/max": 1.4 + rng.random() * 0.2,
        "ratio/log_abs_mean": 0.01 + rng.random() * 0.004,
        "mhpo/psi_saturation": rng.random() * 0.004,
        "mhpo/survival_mean/positive_shift": 0.27 + rng.gauss(0, 0.004),
        "mhpo/survival_mean/negative_shift": 0.24 + rng.gauss(0, 0.004),
        "kl/rollout": 0.0004 + rng.random() * 0.0001,
        "entropy": 1.4 * math.exp(-step / 90) + rng.gauss(0, 0.02),
        "sampling/sampling_logp_difference/mean": 0.004 + rng.random() * 0.001,
        "sampling/sampling_logp_difference/max": 0.05 + rng.random() * 0.02,
        "sampling/probe_difference": 0.003,
        "loss": rng.gauss(0, 0.01),
        "learning_rate": 1e-4,
        "completions/mean_length": length,
        "completions/min_length": length - 20,
        "completions/max_length": length + 30,
        "completions/clipped_ratio": 0.05 + rng.random() * 0.03,
        "time/rollout": rollout,
        "time/rewards": 0.1,
        "time/learner": learner,
        "time/sync": 0.2,
        "time/other": 0.05,
        "step_time": rollout + learner + 0.35,
        "num_tokens": step * 4096,
        "perf/tokens_per_second": 1500 + rng.gauss(0, 40),
        "perf/rollout_tokens_per_second": 2400 + rng.gauss(0, 60),
        "perf/memory_peak_mb": 2100 + step,
    } | ({"eval/reward": reward - 0.03} if step % 20 == 0 else {})


def record_steps(claim: Claim, first: int, last: int, **more: float) -> None:
    """Steps `first` to `last`, some metrics as `more` says; a step's place in its file is its number."""
    rng = random.Random(first)
    lines = [{"step": n, "time": 1.76e9 + 3 * n, "metrics": metrics_of(n, rng) | more} for n in range(first, last + 1)]
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", first - 1, last))


def record_samples(claim: Claim, step: int) -> None:
    """Three prompts with four completions each."""
    groups = [_group(number) for number in range(3)]
    with transaction() as session:
        store_samples(session, claim, step, groups)


def _group(number: int) -> Json:
    right = [number + column < 4 for column in range(4)]
    texts = [f"{number}7 + 5: seven and five are twelve, carry one.\n" * 4 + f"\\boxed{{{number * 10 + 12}}}" for _ in right]
    return {
        "problem_id": f"row-{number}",
        "prompt": f"What is {number}7 + 5? <b>Think</b> step by step.",
        "answer": str(number * 10 + 12),
        "completions": [_completion(text, good, column) for column, (text, good) in enumerate(zip(texts, right, strict=True))],
    }


def _completion(text: str, good: bool, column: int) -> dict[str, Any]:
    return {
        "text": text if good else text[:90],
        "tokens": 40 + column,
        "finish_reason": "stop" if good else "length",
        "reward": float(good),
        "by_grader": {"exact": float(good), "short": 0.5},
        "errors": {},
        "advantage": 0.7 if good else -1.2,
        **({"token_trace": _trace(text)} if good else {}),
    }


def _trace(text: str) -> Json:
    """A token for each of the first words."""
    words = [f"{word} " for word in text.split(" ")[:9]]
    ratios = [round(0.02 * (n - 4), 3) for n in range(len(words))]
    return {"text": words, "log_ratio": ratios, "sampler_difference": [0.0] * len(words), "survival": [0.265] * len(words)}


def record_event(claim: Claim, level: str, kind: str, message: str, number: int) -> None:
    line = {"time": 1.76e9, "step": number, "level": level, "type": kind, "message": message, "data": {}}
    with transaction() as session:
        store_events(session, claim, [line], Span("events.jsonl", number - 1, number))


def append_log(claim: Claim, text: str) -> None:
    file = settings().run_folder(claim.job_id) / "trainer.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(text)


def record_checkpoint(claim: Claim, step: int) -> None:
    folder = settings().run_folder(claim.job_id) / "checkpoints" / f"step_{step}"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"hidden_size": 64}))
    (folder / "COMPLETE").touch()
    with transaction() as session:
        store_checkpoint(session, claim, step, f"checkpoints/step_{step}", final=False)


def score_evaluations(claim: Claim, averages: dict[int, float]) -> None:
    """As if an evaluator had scored the job's evaluations of these steps."""
    with transaction() as session:
        for row in session.execute(select(Evaluation.id, Evaluation.step).where(Evaluation.job_id == claim.job_id)):
            if row.step not in averages:
                continue
            avg = averages[row.step]
            score = {
                "avg": avg,
                "ci_low": avg - 0.08,
                "ci_high": avg + 0.08,
                "n": 8,
                "problems": 30,
                "pass_at": {"8": avg + 0.1},
                "maj": avg,
                "content_hash": "0" * 64,
                "problem_scores": [max(0.0, min(1.0, avg + 0.125 * (n % 5 - 2))) for n in range(30)],
            }
            more = {"mean_tokens": 71.5, "truncated": 0.04, "no_answer": 0.01, "grader_errors": 0}
            result = {"status": "succeeded", "benchmarks": {"sums": {**score, **more}}}
            ended = update(Evaluation).where(Evaluation.id == row.id)
            session.execute(ended.values(status=Status.SUCCEEDED, result=result, finished_at=func.now()))
