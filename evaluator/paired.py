"""Whether two models differ on the same problems. Torch-free: the API compares with it.

Problems are the units of both tests, whatever the number of samples: the exact McNemar test where each problem has one
right-or-wrong score on either side, else a paired bootstrap over problems.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from evaluator.scores import mean

RESAMPLES = 10_000
_CELLS = 4_000_000  # resampled differences in memory at a time


@dataclass(frozen=True, slots=True)
class Paired:
    """The second model's mean score less the first's, over the same problems."""

    difference: float
    low: float  # 95% interval: percentiles of a bootstrap over problems
    high: float
    p_value: float  # two-sided, of no difference
    test: Literal["mcnemar", "paired_bootstrap"]
    problems: int


def compare(first: Sequence[float], second: Sequence[float], seed: int = 0) -> Paired:
    """`first[i]` and `second[i]` are the mean scores of one problem. Raises ValueError where they are not equally many."""
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} problems cannot be paired")
    differences = [after - before for before, after in zip(first, second, strict=True)]
    resampled = _resampled_means(differences, seed)
    low, high = _percentiles(resampled)
    binary = {*first, *second} <= {0.0, 1.0}
    p_value = mcnemar(first, second) if binary else _p_value(mean(differences), resampled)
    test: Literal["mcnemar", "paired_bootstrap"] = "mcnemar" if binary else "paired_bootstrap"
    return Paired(mean(differences), low, high, p_value, test, len(first))


def mcnemar(first: Sequence[float], second: Sequence[float]) -> float:
    """The exact two-sided p-value: of the problems on which only one is right, a fair coin decides which one it is."""
    gained = sum(after > before for before, after in zip(first, second, strict=True))
    lost = sum(after < before for before, after in zip(first, second, strict=True))
    trials, fewer = gained + lost, min(gained, lost)
    ways = sum(math.comb(trials, i) for i in range(fewer + 1))
    return min(1.0, 2 * ways / (1 << trials))


def _resampled_means(differences: Sequence[float], seed: int) -> list[float]:
    """The mean difference of RESAMPLES sets of as many problems, drawn with replacement."""
    import numpy

    values, draw = numpy.asarray(differences), numpy.random.default_rng(seed)
    size = len(values)
    at_once = max(1, _CELLS // size)
    means: list[float] = []
    while len(means) < RESAMPLES:
        chosen = draw.integers(size, size=(min(at_once, RESAMPLES - len(means)), size))
        means += values[chosen].mean(axis=1).tolist()
    return means


def _percentiles(values: Sequence[float]) -> tuple[float, float]:
    ordered = sorted(values)
    return ordered[round(0.025 * (len(ordered) - 1))], ordered[round(0.975 * (len(ordered) - 1))]


def _p_value(difference: float, resampled: Sequence[float]) -> float:
    """How often resampled sets, moved to a true difference of 0, differ by as much; one is added, so that it is never 0."""
    tolerance = 1e-12  # means of the same numbers in another order
    as_far = sum(abs(value - difference) >= abs(difference) - tolerance for value in resampled)
    return (as_far + 1) / (len(resampled) + 1)
