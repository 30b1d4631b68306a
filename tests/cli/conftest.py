"""A service over an empty record, and a spec that it accepts."""

from pathlib import Path
from typing import Any

import pytest

from api.settings import Settings
from tests.conftest import ApiServer


@pytest.fixture
def spec(tmp_path: Path) -> dict[str, Any]:
    """A spec that the API accepts; no worker is there to run it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}')
    (tmp_path / "train.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    return {"name": "sums", "model": {"path": str(tmp_path / "model")}, "dataset": {"path": str(tmp_path / "train.jsonl")}}


@pytest.fixture
def url(record: Settings, shared_api: ApiServer) -> str:
    return shared_api.url
