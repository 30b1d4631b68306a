import itertools

import numpy
import pytest

from evaluator.paired import compare, mcnemar


@pytest.mark.parametrize(
    ("gained", "lost", "p_value"),
    [
        (8, 2, 0.109375),  # 2 (1 + 10 + 45) / 2^10
        (5, 0, 0.0625),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (0, 0, 1.0),
        (0, 12, 2 / 2**12),
    ],
)
def test_mcnemar_by_hand(gained: int, lost: int, p_value: float) -> None:
    first = [0.0] * gained + [1.0] * lost + [1.0, 0.0]
    second = [1.0] * gained + [0.0] * lost + [1.0, 0.0]
    assert mcnemar(first, second) == pytest.approx(p_value)
    assert compare(first, second).p_value == pytest.approx(p_value)
    assert compare(first, second).test == "mcnemar"


def test_the_bootstrap_agrees_with_every_resample_of_four_problems() -> None:
    first, second = [0.25, 0.5, 0.5, 0.75], [0.5, 0.5, 1.0, 0.625]
    differences = [after - before for before, after in zip(first, second, strict=True)]
    centre = sum(differences) / 4
    means = [sum(drawn) / 4 for drawn in itertools.product(differences, repeat=4)]  # all 256, equally likely
    exact = sum(abs(value - centre) >= abs(centre) - 1e-12 for value in means) / len(means)
    found = compare(first, second)
    assert found.difference == pytest.approx(centre)
    assert found.test == "paired_bootstrap"
    # a share of 10,000 draws has a standard error of at most 0.005
    assert found.p_value == pytest.approx(exact, abs=0.02)
    assert found.low == pytest.approx(numpy.quantile(means, 0.025), abs=0.05)
    assert found.high == pytest.approx(numpy.quantile(means, 0.975), abs=0.05)


def test_pairing_finds_a_difference_that_the_two_intervals_hide() -> None:
    draw = numpy.random.default_rng(0)
    before = draw.random(60)  # problems differ a lot, and each is solved a little more often afterwards
    found = compare(before.tolist(), (before * 0.9 + 0.1 * draw.random(60) + 0.05).tolist())
    assert found.p_value < 0.01
    assert found.low > 0


def test_the_same_scores_do_not_differ_and_the_answer_is_the_same_each_time() -> None:
    scores = [0.25, 0.5, 1.0]
    assert compare(scores, scores) == compare(scores, scores)
    assert (compare(scores, scores).difference, compare(scores, scores).p_value) == (0.0, 1.0)


def test_of_two_equal_models_one_in_twenty_comparisons_is_significant() -> None:
    draw = numpy.random.default_rng(1)
    rates = draw.beta(1, 1, size=(200, 40))
    pairs = [(draw.binomial(8, rate) / 8, draw.binomial(8, rate) / 8) for rate in rates]
    significant = sum(compare(first.tolist(), second.tolist()).p_value < 0.05 for first, second in pairs)
    assert 2 <= significant <= 22  # 10 expected; the binomial lies outside in 1 of 1,000


def test_other_numbers_of_problems_are_refused() -> None:
    with pytest.raises(ValueError, match="2 and 3 problems cannot be paired"):
        compare([0.0, 1.0], [0.0, 1.0, 1.0])
