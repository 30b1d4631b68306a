"""Curves on a terminal and how they are followed, by values worked out by hand."""

import pytest

from cli.canvas import Canvas
from cli.errors import CliError, ExitCode
from cli.feed import Sent, parsed
from cli.panels import TIMES, Panel, draw, time_split
from cli.series import MOST_POINTS, Series


def test_dots_are_cells_of_two_columns_and_four_rows() -> None:
    canvas = Canvas(2, 1)
    for column in range(4):
        canvas.dot(column, column, "cyan")  # a line that rises through all four rows
    assert [line.plain for line in canvas.lines()] == ["⡠⠊"]
    canvas.dot(0, 3, "red")  # another style has the cell for itself
    canvas.mark(3, 0, "◆", "yellow")
    assert [line.plain for line in canvas.lines()] == ["⠁◆"]


def test_a_panel_has_a_title_a_plot_and_its_ends() -> None:
    series = Series({"reward", "eval/reward"})
    for step, reward in ((1, 0.0), (2, 1.0)):
        series.add(step, 1, {"reward": reward, "eval/reward": 0.5 if step == 2 else None})
    lines = [line.plain for line in draw(Panel("Reward", ("reward",), points="eval/reward"), series, 12, 4)]
    assert lines == [
        "Reward  1  ◆",  # what is wider than the panel is cut
        "     1 │  ⡠◆",  # eight columns and eight rows of dots: a diagonal; the point lies in the last column, half way up
        "     0 │⡠⠊  ",
        "        1  2",
    ]


def test_a_band_lies_about_its_line_and_does_not_hide_it() -> None:
    series = Series({"reward", "reward_std"})
    for step in (1, 2):
        series.add(step, 1, {"reward": 0.5, "reward_std": 0.5})
    lines = draw(Panel("Reward", ("reward",), spread="reward_std"), series, 10, 3)
    assert lines[1].plain.startswith("     0 │")
    styles = {str(span.style) for span in lines[1].spans}
    assert "cyan" in styles


def test_the_time_split_is_a_bar_of_shares() -> None:
    series = Series({*TIMES, "step_time", "perf/tokens_per_second"})
    assert time_split(series, 20) == []
    series.add(1, 1, {"time/rollout": 3.0, "time/learner": 1.0, "step_time": 4.0})
    title, bar = time_split(series, 20)
    assert "Step 4 s" in title.plain
    assert "rollout 75%" in title.plain
    assert bar.plain == "█" * 20
    assert [(span.start, span.end) for span in bar.spans if span.end > span.start] == [(0, 15), (15, 20)]


def test_a_step_that_is_done_again_replaces_itself_and_all_behind_it() -> None:
    series = Series({"reward"})
    for step in (1, 2, 3):
        series.add(step, 1, {"reward": 1.0})
    series.add(2, 1, {"reward": 9.0})  # it is there already
    assert series.curve("reward") == [(1, 1.0), (2, 1.0), (3, 1.0)]
    series.add(2, 2, {"reward": 5.0})  # a later attempt
    assert series.curve("reward") == [(1, 1.0), (2, 5.0)]


def test_a_long_curve_is_thinned_by_means() -> None:
    series = Series({"reward"})
    for step in range(1, MOST_POINTS + 2):
        series.add(step, 1, {"reward": float(step)})
    curve = series.curve("reward")
    assert len(curve) == MOST_POINTS // 2 + 1
    assert curve[:2] == [(2, 1.5), (4, 3.5)]
    assert curve[-1] == (MOST_POINTS + 1, MOST_POINTS + 1.0)


def test_a_stream_is_read_event_by_event() -> None:
    lines = ["retry: 3000", "", ": ping", "", "event: status", 'data: {"step": 1}', "id: 7", "", "event: cut", "data: {"]
    assert list(parsed(lines)) == [Sent("", "", {}, 3.0), Sent("status", "7", {"step": 1})]


def test_exit_codes_are_told_apart_and_have_a_meaning() -> None:
    assert len(ExitCode.__members__) == len({code.value for code in ExitCode}) == len({code.meaning for code in ExitCode})
    assert CliError("no", ExitCode.CONFLICT).as_json() == {
        "error": {"message": "no", "type": "command_error", "param": None, "code": "conflict"}
    }


@pytest.mark.parametrize("width", [24, 40, 200])
def test_a_panel_is_as_wide_and_as_high_as_it_may_be(width: int) -> None:
    series = Series({"entropy"})
    for step in range(1, 50):
        series.add(step, 1, {"entropy": 1 / step})
    lines = draw(Panel("Entropy", ("entropy",)), series, width, 7)
    assert len(lines) == 7
    assert max(line.cell_len for line in lines) <= width
