"""Which problems are drawn again, and when that ends."""

from trainer.objective_config import ResampleZeroVariance
from trainer.resampling import resample
from trainer.types import Completion, Problem, RolloutGroup, Score


def group(index: int, signal: bool) -> RolloutGroup:
    completions = tuple(Completion((i,), "", (-1.0,), "stop") for i in range(2))
    scores = (Score(0.0, {}), Score(float(signal), {}))
    return RolloutGroup(Problem(str(index), index, "", ""), (1,), completions, scores, ())


class Problems:
    """An order of problems, of which those numbered in `signal` have a signal; remembers what was asked."""

    def __init__(self, signal: set[int]) -> None:
        self._signal = signal
        self.asked: list[tuple[int, int]] = []

    def draw(self, drawn: int, count: int) -> list[RolloutGroup]:
        self.asked.append((drawn, count))
        return [group(i, i in self._signal) for i in range(drawn, drawn + count)]


def drawn_by(signal: set[int], bound: int) -> tuple[list[int], list[tuple[int, int]]]:
    """The problems drawn for a step of four, and the rounds."""
    problems = Problems(signal)
    first = [group(i, i in signal) for i in range(4)]
    groups = resample(first, ResampleZeroVariance(max_extra_prompts=bound), problems.draw)
    return [g.problem.index for g in groups], problems.asked


def test_nothing_is_drawn_where_all_have_a_signal() -> None:
    assert drawn_by({0, 1, 2, 3}, bound=9) == ([0, 1, 2, 3], [])


def test_as_many_as_are_missing_in_each_round() -> None:
    """0 and 3 are wanting; 4 has a signal and 5 has not; 6 has not; 7 has."""
    assert drawn_by({1, 2, 4, 7}, bound=9) == ([0, 1, 2, 3, 4, 5, 6, 7], [(4, 2), (6, 1), (7, 1)])


def test_the_bound_ends_it() -> None:
    assert drawn_by({1}, bound=5) == ([0, 1, 2, 3, 4, 5, 6, 7, 8], [(4, 3), (7, 2)])
    assert drawn_by(set(), bound=1) == ([0, 1, 2, 3, 4], [(4, 1)])
