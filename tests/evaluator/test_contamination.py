from pathlib import Path

import pytest

from evaluator.config import Benchmark
from evaluator.contamination import Overlap, contamination, overlaps, training_texts
from evaluator.problems import benchmark_rows
from trainer.config import Dataset

SHARED = Path(__file__).parents[2].parent / "shared" / "benchmarks"
TRAINING = SHARED / "dapo_math_17k.jsonl"


def test_overlap_is_the_share_of_runs_of_words_in_one_row() -> None:
    problem = "a b c d e f"  # runs of 3: abc bcd cde def
    found = overlaps([problem], ["x y z", "A b, c! d", "b c d e f g", "a b c"], words=3)
    assert found == [Overlap(3 / 4, 2)]


def test_two_halves_in_two_rows_are_no_copy() -> None:
    assert overlaps(["a b c d e f"], ["a b c d", "c d e f"], words=3) == [Overlap(0.5, 0)]


def test_short_texts_numbers_and_chinese_are_compared_too() -> None:
    assert overlaps(["Compute $1+2$."], ["compute 1 - 2"]) == [Overlap(1.0, 0)]
    assert overlaps(["求1到9的和是多少呢"], ["题: 求 1 到 9 的和是多少呢"], words=8) == [Overlap(1.0, 0)]
    assert overlaps(["1 2 3 4 5 6 7 8"], ["1 2 3 4 5 6 7 9"]) == [Overlap(0.0, None)]
    assert overlaps(["..."], ["..."]) == [Overlap(0.0, None)]


def test_the_clean_score_is_that_of_the_other_problems() -> None:
    found = [Overlap(1.0, 3), Overlap(0.59, 1), Overlap(0.6, 2), Overlap(0.0, None)]
    told = contamination(["a", "b", "c", "d"], found, [1.0, 0.5, 1.0, 0.0], "train.jsonl")
    assert (told.problems, told.contaminated, told.problem_ids, told.clean_avg) == (4, 2, ("a", "c"), 0.25)
    assert contamination(["a"], found[:1], [1.0], "train.jsonl").clean_avg is None


@pytest.mark.slow
@pytest.mark.benchmark_data
@pytest.mark.skipif(not TRAINING.exists(), reason=f"needs {TRAINING}")
def test_dapo_holds_half_of_amc23_and_nothing_of_aime_and_hmmt() -> None:
    training = list(training_texts(Dataset(path=str(TRAINING))))

    def held(name: str) -> int:
        rows = benchmark_rows(Benchmark(name=name, path=str(SHARED / f"{name}.jsonl")), "benchmarks.0")
        return sum(one.share >= 0.6 for one in overlaps(rows.texts, training))

    assert held("amc23") >= 20
    assert held("math500") >= 11
    assert [held(name) for name in ("aime24", "aime25", "hmmt25")] == [0, 0, 0]
