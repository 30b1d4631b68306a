import itertools
import math

import numpy
import pytest

from evaluator.scores import Sample, interval, pass_at_k, score_benchmark, t_quantile


def sample(score: float, *, tokens: int = 10, truncated: bool = False, answered: bool = True, failed: bool = False) -> Sample:
    return Sample(score=score, tokens=tokens, truncated=truncated, answered=answered, failed=failed)


def test_pass_at_k_is_the_share_of_draws_with_a_right_one() -> None:
    for n in range(1, 8):
        for right in range(n + 1):
            marks = [True] * right + [False] * (n - right)
            for k in range(1, n + 1):
                draws = [any(draw) for draw in itertools.combinations(marks, k)]
                assert pass_at_k(n, right, k) == pytest.approx(sum(draws) / len(draws), abs=1e-15)


def test_pass_at_k_of_many_samples_is_stable() -> None:
    assert pass_at_k(4096, 1, 4096) == 1.0
    assert pass_at_k(4096, 1, 1) == 1 / 4096
    assert pass_at_k(4096, 0, 2048) == 0.0
    assert pass_at_k(4096, 1, 2048) == 0.5


@pytest.mark.parametrize(
    ("probability", "freedom", "table"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.30265),
        (0.975, 3, 3.18245),
        (0.975, 29, 2.04523),
        (0.975, 30, 2.04227),
        (0.95, 5, 2.01505),
        (0.975, 1318, 1.96177),
    ],
)
def test_t_quantiles_are_those_of_the_tables(probability: float, freedom: int, table: float) -> None:
    assert t_quantile(probability, freedom) == pytest.approx(table, abs=6e-5)


def test_interval_by_hand() -> None:
    # means 0, 0.5, 1: centre 0.5, standard deviation 0.5, t(0.975, 2) = 4.3027: half width 1.242, cut to [0, 1]
    assert interval([0.0, 0.5, 1.0]) == (0.0, 1.0)
    # means 0.4 and 0.6 ten times each: standard deviation 0.1 sqrt(20/19), t(0.975, 19) = 2.09302
    low, high = interval([0.4, 0.6] * 10)
    half = 2.09302 * 0.1 * math.sqrt(20 / 19) / math.sqrt(20)
    assert low == pytest.approx(0.5 - half, abs=1e-5)
    assert high == pytest.approx(0.5 + half, abs=1e-5)


def test_interval_at_the_ends_is_exact_binomial() -> None:
    low, high = interval([0.0] * 30)
    assert low == 0.0
    assert high is not None
    assert (1 - high) ** 30 == pytest.approx(0.025)
    mirrored, one = interval([1.0] * 30)
    assert mirrored == pytest.approx(1 - high)
    assert one == 1.0
    assert interval([0.5]) == (None, None)


def test_interval_agrees_with_a_bootstrap_over_problems() -> None:
    draw = numpy.random.default_rng(5)
    rates = draw.beta(0.6, 0.9, size=200)
    means = draw.binomial(8, rates) / 8
    resampled = draw.choice(means, size=(20_000, len(means))).mean(axis=1)
    low, high = interval(means.tolist())
    assert low is not None
    assert high is not None
    # against the percentile interval of 20,000 resamples; 0.004 is 5% of its width
    assert low == pytest.approx(numpy.quantile(resampled, 0.025), abs=4e-3)
    assert high == pytest.approx(numpy.quantile(resampled, 0.975), abs=4e-3)


def test_samples_of_one_problem_are_one_observation() -> None:
    few = score_benchmark([[sample(0.0)], [sample(1.0)]] * 10)
    many = score_benchmark([[sample(0.0)] * 16, [sample(1.0)] * 16] * 10)
    assert (few.ci_low, few.ci_high) == (many.ci_low, many.ci_high)


def test_a_benchmark_by_hand() -> None:
    score = score_benchmark(
        [
            [sample(1.0, tokens=4), sample(0.0, tokens=8, truncated=True, answered=False)],
            [sample(0.0, tokens=4, failed=True), sample(0.0, tokens=4)],
            [sample(1.0, tokens=2), sample(1.0, tokens=2)],
        ]
    )
    assert (score.avg, score.n, score.problems) == (0.5, 2, 3)
    assert score.pass_at == {"1": pytest.approx(0.5), "2": pytest.approx(2 / 3)}
    assert score.mean_tokens == 4.0
    assert score.truncated == pytest.approx(1 / 6)
    assert score.no_answer == pytest.approx(1 / 6)
    assert score.grader_errors == 1


def test_a_part_of_a_score_is_no_pass() -> None:
    score = score_benchmark([[sample(0.9)], [sample(1.0)]])
    assert score.avg == pytest.approx(0.95)
    assert score.pass_at == {"1": 0.5}


def test_unequal_numbers_of_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="equally many"):
        score_benchmark([[sample(1.0)], [sample(1.0), sample(1.0)]])
