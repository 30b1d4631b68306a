"""Curves in characters, against values worked out by hand."""

import pytest

from cli.curves import chart, sparkline
from cli.words import duration


def test_a_sparkline_goes_from_the_lowest_to_the_highest_block() -> None:
    # Eight equal steps over eight blocks.
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8) == "▁▂▃▄▅▆▇█"


def test_a_sparkline_narrower_than_its_values_shows_means() -> None:
    # Means of (0, 2), (2, 4), (6, 8): 1, 3, 7; of the span 6: 0, 1/3, 1; of seven blocks up: 0, 2.33, 7.
    assert sparkline([0, 2, 2, 4, 6, 8], 3) == "▁▃█"


def test_a_sparkline_that_does_not_move_lies_at_the_bottom() -> None:
    assert sparkline([3.0, 3.0], 10) == "▁▁"
    assert sparkline([], 10) == ""


def test_a_chart_has_its_values_on_rows_and_its_ends_on_the_axes() -> None:
    assert chart([(1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0)], 10, 5) == [
        "4 ┤   •",
        "  ┤",
        "2 ┤  •",
        "  ┤ •",
        "0 ┤•",
        "  └────",
        "   1  4",
    ]


def test_a_chart_of_one_step() -> None:
    assert chart([(7, 2.0)], 10, 3) == ["2.5 ┤", "  2 ┤•", "1.5 ┤", "    └─", "     7"]


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59.6, "1 m 00 s"), (185, "3 m 05 s"), (7800, "2 h 10 m")])
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words
