"""A tiny real model (Qwen3, random weights) and two small benchmarks."""

import json
from pathlib import Path
from typing import Any

import pytest

from trainer.first_run import character_tokenizer, small_qwen3
from trainer.tasks import sums

Document = dict[str, Any]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first run's model with random weights, in Hugging Face format."""
    folder = tmp_path_factory.mktemp("tiny-model")
    tokenizer = character_tokenizer()
    small_qwen3(tokenizer, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def document(tiny_model: Path, tmp_path: Path) -> Document:
    """A spec: the same sums twice, graded by a pattern that random characters meet now and then, and as mathematics."""
    file = tmp_path / "sums.jsonl"
    sums.write_problems(file, 12, seed=7)
    return {
        "model": {"path": str(tiny_model)},
        "benchmarks": [
            {"name": "digits", "path": str(file), "grader": {"type": "regex", "pattern": "[0-9]", "weight": 2.0}},
            {"name": "sums", "path": str(file)},
        ],
        "engine": "transformers",
        "samples": 3,
        "max_problems": 8,
        "max_new_tokens": 8,
        "seed": 5,
    }


def write_config(folder: Path, document: Document) -> Path:
    """config.json in a folder of the evaluation's own."""
    folder.mkdir(exist_ok=True)
    config = folder / "config.json"
    config.write_text(json.dumps(document))
    return config
