"""Specs: what is refused, where the error points, and what it says."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.algorithm_config import Mhpo
from trainer.config import JobSpec, load_spec
from trainer.strict import SpecError

MINIMAL: dict[str, Any] = {"model": {"path": "m"}, "dataset": {"path": "d.jsonl"}}
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"modle": 1}, "modle", "did you mean 'model'"),
        ({"rollout": {"grup_size": 8}}, "rollout.grup_size", "did you mean 'group_size'"),
        ({"algorithm": {"type": "mhpo", "lambda_neq": 1.0}}, "algorithm.lambda_neq", "did you mean 'lambda_neg'"),
        ({"algorithm": {"type": "ppo"}}, "algorithm", "'mhpo', 'grpo'"),
        ({"algorithm": {"c": 1.5}}, "algorithm", "a `type` is needed"),
        ({"algorithm": {"type": "mhpo", "c": 0}}, "algorithm.c", "greater than 0; got 0"),
        ({"optimizer": {"lr": -1e-6}}, "optimizer.lr", "greater than 0; got -1e-06"),
        ({"optimizer": {"lr": "1e-6"}}, "optimizer.lr", "valid number; got '1e-6'"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas.1", "less than 1"),
        ({"rollout": {"group_size": 1}}, "rollout.group_size", "greater than or equal to 2; got 1"),
        ({"rollout": {"group_size": 10**18}}, "rollout.group_size", "less than or equal to 4096"),
        ({"rollout": {"stop": [""]}}, "rollout.stop.0", "at least 1 character"),
        ({"steps": 10**15}, "steps", "less than or equal to 10000000"),
        ({"model": {"path": "m", "revision": "\n"}}, "model.revision", "match pattern"),
        ({"rewards": [{"type": "math", "weight": 1e308}]}, "rewards.0.weight", "less than or equal to 1000000"),
        ({"rollout": {"top_p": 0}}, "rollout.top_p", "greater than 0"),
        ({"rollout": {"engine": "sglang"}}, "rollout.engine", "'vllm' or 'transformers'"),
        ({"rewards": []}, "rewards", "at least 1 item"),
        ({"rewards": [{"type": "regex", "pattern": "("}]}, "rewards.0", "no regular expression"),
        ({"rewards": [{"type": "length", "target": 9, "limit": 9}]}, "rewards.0", "limit must be above target = 9"),
        ({"rewards": [{"type": "math"}, {"type": "math"}]}, None, "two graders have one name"),
        ({"updates_per_batch": 32}, None, "at most rollout.prompts_per_step = 16"),
        ({"resources": {"device": "cpu", "engine_sleeps": True}}, None, "('vllm', 0, 'cpu')"),
        ({"resources": {"engine_sleeps": True}, "rollout": {"staleness": 1}}, None, "('vllm', 1, 'auto')"),
        ({"resources": {"engine_sleeps": True}, "rollout": {"engine": "transformers"}}, None, "('transformers', 0, 'auto')"),
        ({"dataset": {"path": "d", "prompt_template": "solve"}}, "dataset", "must contain {problem}"),
        ({"dataset": {}}, "dataset.path", "Field required"),
        ({"steps": 1.5}, "steps", "valid integer"),
        ({"steps": True}, "steps", "valid integer"),
        ({"seed": float("nan")}, "seed", "got nan"),
    ],
)
def test_refused(change: dict[str, Any], param: str | None, says: str) -> None:
    with pytest.raises(SpecError) as error:
        JobSpec.parse(MINIMAL | change)
    assert error.value.param == param
    assert says in error.value.message


@pytest.mark.parametrize("document", [None, [], "spec", 3])
def test_not_an_object(document: Any) -> None:
    with pytest.raises(SpecError):
        JobSpec.parse(document)


def test_defaults_are_the_papers() -> None:
    assert JobSpec.parse(MINIMAL).algorithm == Mhpo(c=1.5, k_pos=1.5, lambda_pos=1.0, k_neg=2.0, lambda_neg=0.8)


def test_a_spec_survives_the_run_folder(tmp_path: Path) -> None:
    spec = JobSpec.parse(MINIMAL | {"rollout": {"stop": ["\n\n"]}, "optimizer": {"betas": [0.9, 0.95]}})
    (tmp_path / "config.json").write_text(spec.model_dump_json())
    assert load_spec(tmp_path / "config.json") == spec


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("steps = ")
    with pytest.raises(SpecError, match=r"bad\.toml"):
        load_spec(tmp_path / "bad.toml")
    with pytest.raises(SpecError, match=r"none\.json"):
        load_spec(tmp_path / "none.json")


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.*")), ids=lambda p: p.name)
def test_examples_parse(path: Path) -> None:
    assert load_spec(path).steps > 0


def test_every_field_is_in_the_json_schema_with_its_description() -> None:
    schema = json.dumps(JobSpec.model_json_schema())
    assert "updates_per_batch" in schema
    assert "Completions of one prompt" in schema
