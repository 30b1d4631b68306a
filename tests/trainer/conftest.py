"""A tiny real model (Qwen3, random weights) and a dataset, made once a session."""

from pathlib import Path

import pytest

from trainer.config import JobSpec
from trainer.first_run import character_tokenizer, small_qwen3
from trainer.tasks import sums


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run's model with random weights, in Hugging Face format."""
    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sums_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 sums."""
    path = tmp_path_factory.mktemp("sums") / "train.jsonl"
    sums.write_problems(path, 64, seed=7)
    return path


@pytest.fixture
def tiny_spec(tiny_model: Path, sums_file: Path) -> dict[str, object]:
    """A spec that trains in a second a step: the reward prefers short completions, so that random weights get a signal."""
    document: dict[str, object] = {
        "steps": 6,
        "model": {"path": str(tiny_model)},
        "dataset": {"path": str(sums_file)},
        "rollout": {"engine": "transformers", "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 12},
        "optimizer": {"lr": 1e-3},
        "rewards": [{"type": "length", "target": 2, "limit": 12}, {"type": "regex", "pattern": "[0-9]", "weight": 0.5}],
        "checkpoints": {"every": 2, "keep": 2},
    }
    JobSpec.parse(document)
    return document
