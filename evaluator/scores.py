"""What is said of a benchmark from its graded samples. Problems are the independent units; a problem's samples are not.

avg@n, pass@k and maj@n are each a mean over problems of one value a problem, and each has the same 95% interval: Student's t
over those values, so that n samples of one problem count as one observation of it. Where every value is 0, or every one 1, a
t interval has no width; the exact binomial (Clopper-Pearson) interval over problems stands in its place.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded completion. A sample that the grader failed on scores 0 and is counted apart."""

    score: float  # in [0, 1]; 1 is right
    tokens: int
    truncated: bool  # cut at max_new_tokens
    answered: bool  # it has an answer to grade: a box for the math grader, any text for the others
    failed: bool  # the grader raised, timed out or returned no number
    vote: str | None = None  # what it answers, for maj@n; None where it answers nothing


Interval = tuple[float | None, float | None]  # (None, None) for a single problem


@dataclass(frozen=True, slots=True)
class BenchmarkScore:
    """The scores of a benchmark; rates and `mean_tokens` are over all samples."""

    avg: float  # mean score over problems of the mean over samples: avg@n
    ci_low: float | None  # None for a single problem
    ci_high: float | None
    n: int  # samples a problem
    problems: int
    pass_at: dict[str, float]  # k -> unbiased pass@k, k = 1..n; a sample passes where its score is 1
    pass_at_interval: dict[str, Interval]
    maj: float  # mean score over problems of the answer given most often: maj@n
    maj_low: float | None
    maj_high: float | None
    problem_scores: tuple[float, ...]  # each problem's mean, in the order of the rows: what two results are compared by
    mean_tokens: float
    truncated: float
    no_answer: float
    grader_errors: int  # samples; each counts as 0 in avg and pass@k


def score_benchmark(problems: Sequence[Sequence[Sample]]) -> BenchmarkScore:
    """The scores of problems with equally many samples each."""
    n = len(problems[0])
    if any(len(samples) != n for samples in problems):
        raise ValueError("every problem needs equally many samples")
    samples = [sample for group in problems for sample in group]
    means = [math.fsum(sample.score for sample in group) / n for group in problems]
    passed = [sum(sample.score >= 1.0 for sample in group) for group in problems]
    passing = {str(k): [pass_at_k(n, right, k) for right in passed] for k in range(1, n + 1)}
    chosen = [majority(group) for group in problems]
    low, high = interval(means)
    maj_low, maj_high = interval(chosen)
    return BenchmarkScore(
        avg=mean(means),
        ci_low=low,
        ci_high=high,
        n=n,
        problems=len(problems),
        pass_at={k: mean(values) for k, values in passing.items()},
        pass_at_interval={k: interval(values) for k, values in passing.items()},
        maj=mean(chosen),
        maj_low=maj_low,
        maj_high=maj_high,
        problem_scores=tuple(means),
        mean_tokens=mean([sample.tokens for sample in samples]),
        truncated=mean([sample.truncated for sample in samples]),
        no_answer=mean([not sample.answered for sample in samples]),
        grader_errors=sum(sample.failed for sample in samples),
    )


def mean(values: Sequence[float]) -> float:
    """Of at least one value."""
    return math.fsum(values) / len(values)


def majority(samples: Sequence[Sample]) -> float:
    """The score of the answer that most samples give; the mean over answers that tie; 0 where none gives an answer."""
    votes: dict[str, list[float]] = defaultdict(list)
    for sample in samples:
        if sample.vote is not None:
            votes[sample.vote].append(sample.score)
    most = max(map(len, votes.values()), default=0)
    return mean([mean(scores) for scores in votes.values() if len(scores) == most]) if most else 0.0


def pass_at_k(n: int, right: int, k: int) -> float:
    """The probability that k of the n samples, drawn without replacement, hold a right one: 1 - C(n - right, k) / C(n, k).

    Unbiased for pass@k (arXiv 2107.03374, equation 1). Integers are exact and their quotient is rounded once.
    """
    ways = math.comb(n, k)
    return (ways - math.comb(n - right, k)) / ways


def interval(means: Sequence[float]) -> Interval:
    """The 95% interval of the mean of one value a problem, within [0, 1]; (None, None) for a single problem."""
    count = len(means)
    if count < 2:
        return None, None
    if all(mean == 0.0 for mean in means):
        return 0.0, 1.0 - _exact_bound(count)
    if all(mean == 1.0 for mean in means):
        return _exact_bound(count), 1.0
    centre = math.fsum(means) / count
    variance = math.fsum((mean - centre) ** 2 for mean in means) / (count - 1)
    half = t_quantile((1.0 + CONFIDENCE) / 2.0, count - 1) * math.sqrt(variance / count)
    return max(0.0, centre - half), min(1.0, centre + half)


def _exact_bound(count: int) -> float:
    """The success rate at which `count` successes in as many trials have probability (1 - CONFIDENCE) / 2."""
    return float(((1.0 - CONFIDENCE) / 2.0) ** (1.0 / count))


def t_quantile(probability: float, freedom: int) -> float:
    """The t with P(T <= t) = probability >= 0.5 for Student's T with `freedom` degrees, by bisection on the angle."""
    low, high = 0.0, math.pi / 2
    for _ in range(64):
        angle = (low + high) / 2
        low, high = (angle, high) if _within(angle, freedom) < 2 * probability - 1 else (low, angle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def _within(angle: float, freedom: int) -> float:
    """P(|T| <= sqrt(freedom) tan(angle)), the finite series for whole degrees (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for power in range(1 if odd else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
