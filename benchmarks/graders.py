"""Ordinary gradings a second, beside a plain math-verify loop over the same answers in the same run.

    python -m benchmarks.graders [--gradings 20000]

"Ordinary" is a batch as rollouts give it: groups of 8 completions a problem; most golds are integers (as in AIME, AMC, GSM8K
and DAPO-Math), a tenth are expressions. The plain loop is what a trainer without guards runs: parse and verify in one process.
"""

import argparse
import os
from random import Random
from time import perf_counter

from math_verify import parse, verify

from trainer.config import MathGrader
from trainer.rewards.score import Scorer
from trainer.types import Completion, Problem

GROUP = 8
EXPRESSIONS = (r"\frac{%d}{7}", r"%d\sqrt{3}", r"\left(%d, \frac{\pi}{2}\right)", "%d+2i", "x^2+%d")
WORKING = "We add the terms one after the other and simplify what is left. " * 20


def batch(gradings: int, expressions: float) -> list[tuple[Problem, Completion]]:
    """Half of the answers are right."""
    draw = Random(0)
    items = []
    for index in range(gradings // GROUP):
        form = draw.choice(EXPRESSIONS) if draw.random() < expressions else "%d"
        gold = draw.randrange(1000)
        problem = Problem(id=str(index), index=index, prompt="?", answer=form % gold)
        for _ in range(GROUP):
            answer = form % (gold if draw.random() < 0.5 else draw.randrange(1000))
            text = f"{WORKING}The final answer is $\\boxed{{{answer}}}$."
            items.append((problem, Completion(token_ids=(1,), text=text, sampler_logprobs=(0.0,), finish_reason="stop")))
    return items


def ours(items: list[tuple[Problem, Completion]]) -> float:
    """Gradings a second; the pool's start is not in it."""
    with Scorer([MathGrader()]) as scorer:
        scorer.score(batch(GROUP * 16, expressions=1.0))
        start = perf_counter()
        scores = scorer.score(items)
        seconds = perf_counter() - start
    assert not any(score.errors for score in scores)
    return len(items) / seconds


def plain(items: list[tuple[Problem, Completion]]) -> float:
    """Gradings a second of `verify(parse(gold), parse(text))`."""
    start = perf_counter()
    for problem, completion in items:
        verify(parse(f"\\boxed{{{problem.answer}}}"), parse(completion.text))
    return len(items) / (perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="gradings a second")
    parser.add_argument("--gradings", type=int, default=20_000)
    gradings = parser.parse_args().gradings
    print(f"{len(os.sched_getaffinity(0))} cores; gradings a second")
    print(f"{'':36}{'scorer':>10}{'plain loop':>12}{'times':>8}")
    for name, share in (("integer answers", 0.0), ("a tenth are expressions", 0.1), ("all are expressions", 1.0)):
        items = batch(gradings, share)
        fast, slow = ours(items), plain(items[: max(GROUP, gradings // 20)])
        print(f"{name:36}{fast:10.0f}{slow:12.0f}{fast / slow:8.1f}")


if __name__ == "__main__":
    main()
