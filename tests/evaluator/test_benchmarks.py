from pathlib import Path

import pytest

from evaluator.benchmarks import evaluation_of, find_benchmark, known_benchmarks
from evaluator.config import EvaluationSpec
from trainer.config import JobSpec, Model
from trainer.strict import SpecError


@pytest.fixture(autouse=True)
def no_local_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MHPO_BENCHMARK_DIR", raising=False)


def test_the_benchmarks_of_the_paper_are_known() -> None:
    named = {benchmark.name: benchmark for benchmark in known_benchmarks()}
    paper = ["aime24", "aime25", "amc23", "math500", "hmmt25"]
    assert {*paper, "gsm8k", "gsm8k_train", "dapo_math_17k"} <= named.keys()
    assert [named[name].sampling.samples for name in paper] == [32] * 5
    assert all(one.licence and one.chat_template and "\\boxed" in one.prompt_template for one in named.values())
    assert find_benchmark("gsm8k").answer_after == "####"


def test_a_spec_takes_each_benchmarks_own_sampling_unless_it_says_otherwise() -> None:
    entries = tuple(map(find_benchmark, ("aime24", "gsm8k")))
    own = EvaluationSpec(model=Model(path="base"), benchmarks=entries)
    assert [own.sampling(entry).samples for entry in entries] == [32, 8]
    asked = own.model_copy(update={"samples": 4, "temperature": 0.0})
    assert [asked.sampling(entry).samples for entry in entries] == [4, 4]
    assert (asked.sampling(entries[0]).temperature, asked.sampling(entries[0]).top_p) == (0.0, 0.95)


def test_a_file_in_the_benchmark_folder_replaces_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "gsm8k.jsonl"
    file.write_text('{"problem": "1+1", "answer": "2"}\n')
    monkeypatch.setenv("MHPO_BENCHMARK_DIR", str(tmp_path))
    local = find_benchmark("gsm8k")
    assert (local.path, local.problem_column, local.answer_after, local.revision) == (str(file), "problem", None, None)
    assert find_benchmark("aime24").path == "HuggingFaceH4/aime_2024"


def test_a_path_gives_an_entry_named_after_its_stem(tmp_path: Path) -> None:
    file = tmp_path / "my-set.v2.jsonl"
    file.write_text("")
    assert find_benchmark(str(file)).name == "my-set.v2"


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(SpecError) as error:
        find_benchmark("aime2", "evaluation.benchmarks.0")
    assert error.value.param == "evaluation.benchmarks.0"
    assert "'aime2'" in error.value.message
    assert "did you mean 'aime25'?" in error.value.message or "did you mean 'aime24'?" in error.value.message


def test_an_absent_file_and_an_unusable_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no file"):
        find_benchmark(str(tmp_path / "absent.jsonl"))
    odd = tmp_path / "two words.jsonl"
    odd.write_text("")
    with pytest.raises(SpecError, match="named after its file"):
        find_benchmark(str(odd))


def test_a_job_is_evaluated_with_the_prompts_it_trains_on(tmp_path: Path) -> None:
    file = tmp_path / "held_out.jsonl"
    file.write_text("")
    job = JobSpec.parse(
        {
            "model": {"path": "base"},
            "dataset": {"path": "train.jsonl", "prompt_template": "Q: {problem} A:"},
            "rollout": {"engine": "transformers", "max_new_tokens": 52, "stop": ["\n"]},
            "evaluation": {"benchmarks": [str(file), "math500"], "samples": 3, "max_problems": 5},
            "seed": 7,
        }
    )
    spec = evaluation_of(job, Model(path="checkpoints/step_20"))
    assert [benchmark.prompt_template for benchmark in spec.benchmarks] == ["Q: {problem} A:"] * 2
    assert not spec.benchmarks[1].chat_template
    assert (spec.engine, spec.samples, spec.max_problems, spec.max_new_tokens) == ("transformers", 3, 5, 52)
    assert (spec.stop, spec.seed, spec.model.path) == (("\n",), 7, "checkpoints/step_20")
