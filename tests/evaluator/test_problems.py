import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from evaluator.config import Benchmark
from evaluator.problems import benchmark_problems
from trainer.strict import SpecError


def benchmark(folder: Path, *answers: str) -> Benchmark:
    file = folder / "set.jsonl"
    file.write_text("".join(json.dumps({"problem": f"p{i}", "answer": answer}) + "\n" for i, answer in enumerate(answers)))
    return Benchmark(name="set", path=str(file), answer_after="####")


def test_the_answer_is_what_follows_the_last_marker(tmp_path: Path) -> None:
    problems = benchmark_problems(benchmark(tmp_path, "2+3 = 5 #### 5", "a #### b\n#### 1,080\n"), "benchmarks.0", None)
    assert [problem.answer for problem in problems] == ["5", "1,080"]


def test_only_the_first_problems_are_taken(tmp_path: Path) -> None:
    problems = benchmark_problems(benchmark(tmp_path, "#### 1", "#### 2", "#### 3"), "benchmarks.0", 2)
    assert [(problem.index, problem.answer) for problem in problems] == [(0, "1"), (1, "2")]


@pytest.mark.parametrize("answer", ["5", "5 ####", "5 #### "])
def test_an_answer_without_the_marker_is_refused_by_row(tmp_path: Path, answer: str) -> None:
    with pytest.raises(SpecError, match="row 2") as error:
        benchmark_problems(benchmark(tmp_path, "#### 1", answer), "benchmarks.0", None)
    assert error.value.param == "benchmarks.0.answer_after"


def test_a_hub_benchmark_that_cannot_be_loaded_is_named_with_its_subset() -> None:
    code = "from evaluator.benchmarks import find_benchmark as f; from evaluator.problems import benchmark_problems as b; "
    code += "b(f('gsm8k'), 'benchmarks.0', None)"
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": os.devnull, "MHPO_BENCHMARK_DIR": ""}
    ended = subprocess.run([sys.executable, "-c", code], env=offline, capture_output=True, text=True, timeout=60, check=False)
    assert "SpecError: benchmarks.0.path: cannot load 'openai/gsm8k' (subset 'main', split 'test') from the hub" in ended.stderr
