import itertools
import math

import numpy
import pytest

from evaluator.scores import Sample, interval, majority, pass_at_k, score_benchmark, t_quantile


def sample(
    score: float,
    *,
    tokens: int = 10,
    truncated: bool = False,
    answered: bool = True,
    failed: bool = False,
    vote: str | None = None,
) -> Sample:
    return Sample(score=score, tokens=tokens, truncated=truncated, answered=answered, failed=failed, vote=vote)


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


def votes(*given: tuple[str | None, float]) -> list[Sample]:
    return [sample(score, vote=vote) for vote, score in given]


@pytest.mark.parametrize(
    ("given", "score"),
    [
        ([("5", 1.0), ("5", 1.0), ("7", 0.0)], 1.0),
        ([("5", 1.0), ("7", 0.0), ("7", 0.0)], 0.0),
        ([("5", 1.0), ("7", 0.0)], 0.5),  # a tie is broken by a fair coin
        ([("5", 1.0), ("7", 0.0), ("8", 0.0), (None, 0.0)], 1 / 3),
        ([(None, 0.0), (None, 0.0), ("5", 1.0)], 1.0),  # who answers nothing does not vote
        ([(None, 0.0), (None, 0.0)], 0.0),
    ],
)
def test_the_majority_by_hand(given: list[tuple[str | None, float]], score: float) -> None:
    assert majority(votes(*given)) == pytest.approx(score)


def graded_benchmark(problems: int, n: int) -> list[list[Sample]]:
    """Problems of very different difficulty; wrong answers are spread over four."""
    draw = numpy.random.default_rng(11)
    groups = []
    for rate in draw.beta(0.5, 0.7, size=problems):
        right = draw.random(n) < rate
        wrong = draw.integers(4, size=n)
        groups.append([sample(float(r), vote="right" if r else f"wrong {w}") for r, w in zip(right, wrong, strict=True)])
    return groups


def test_every_interval_agrees_with_a_brute_force_bootstrap_over_problems() -> None:
    """Whole problems are drawn with replacement and the score is computed anew from their samples."""
    groups, n = graded_benchmark(120, 8), 8
    score = score_benchmark(groups)
    draw = numpy.random.default_rng(3)
    resampled = [score_benchmark([groups[i] for i in draw.integers(len(groups), size=len(groups))]) for _ in range(600)]
    found = {
        "avg": ([one.avg for one in resampled], (score.ci_low, score.ci_high)),
        "maj": ([one.maj for one in resampled], (score.maj_low, score.maj_high)),
        **{f"pass@{k}": ([one.pass_at[str(k)] for one in resampled], score.pass_at_interval[str(k)]) for k in (1, 2, 4, n)},
    }
    for name, (values, (low, high)) in found.items():
        assert low is not None
        assert high is not None
        spread = float(numpy.std(values))
        # 1.98 standard errors, t(0.975, 119); a standard deviation of 600 draws is known to 3%, so 10% is three times that
        assert (high - low) / 2 == pytest.approx(1.98 * spread, rel=0.10), name
        assert (low + high) / 2 == pytest.approx(numpy.mean(values), abs=spread / 4), name


def test_an_interval_that_took_samples_for_independent_would_be_too_narrow() -> None:
    groups = graded_benchmark(120, 8)
    score = score_benchmark(groups)
    assert score.ci_low is not None
    assert score.ci_high is not None
    naive = 1.96 * math.sqrt(score.avg * (1 - score.avg) / (120 * 8))
    assert (score.ci_high - score.ci_low) / 2 > 1.8 * naive


def test_problem_scores_are_in_the_order_of_the_rows() -> None:
    score = score_benchmark([[sample(1.0), sample(0.0)], [sample(0.0), sample(0.0)], [sample(1.0), sample(1.0)]])
    assert score.problem_scores == (0.5, 0.0, 1.0)
