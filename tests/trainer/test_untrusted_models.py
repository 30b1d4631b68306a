"""A model's folder runs no code: not by its own Python files, not by pickled weights."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from trainer.config import Model, Resources
from trainer.data import check_model
from trainer.policy import load_model
from trainer.remote_code import VARIABLE
from trainer.rollout.vllm_sampler import engine_options
from trainer.strict import SpecError

CODE = """
from pathlib import Path
from transformers import PretrainedConfig
Path({marker!r}).touch()
class Own(PretrainedConfig):
    model_type = "own"
"""


def with_own_code(folder: Path, marker: Path) -> Path:
    """A model that is loaded by Python code of its own, which leaves a mark when it runs."""
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}))
    (folder / "own.py").write_text(CODE.format(marker=str(marker)))
    return folder


def test_code_that_comes_with_a_model_does_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = with_own_code(tmp_path / "model", tmp_path / "ran")
    with pytest.raises(SpecError, match="trust_remote_code"):
        load_model(Model(path=str(folder)), torch.device("cpu"))
    assert not (tmp_path / "ran").exists()


def test_it_runs_where_the_deployment_trusts_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Shows that the test above could fail."""
    monkeypatch.setenv(VARIABLE, "true")
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = with_own_code(tmp_path / "trusted", tmp_path / "ran")
    with pytest.raises(SpecError):  # there are no weights
        load_model(Model(path=str(folder)), torch.device("cpu"))
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt", "model.ckpt"])
def test_pickled_weights_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / name).write_bytes(b"pickle")
    with pytest.raises(SpecError, match=f"pickle only \\({name}\\)") as caught:
        check_model(Model(path=str(tmp_path)))
    assert caught.value.param == "model.path"
    (tmp_path / "model.safetensors").touch()
    check_model(Model(path=str(tmp_path)))


def test_an_adapter_which_names_another_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "/somewhere/else"}')
    with pytest.raises(SpecError, match=r"adapter_config\.json"):
        check_model(Model(path=str(tmp_path)))


def test_neither_the_learner_nor_the_engine_reads_a_pickle(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub may give what no check has seen: both are told to read safetensors and nothing else."""
    monkeypatch.delenv(VARIABLE, raising=False)
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    state = load_model(Model(path=str(folder)), torch.device("cpu")).state_dict()
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SpecError, match="safetensors"):
        load_model(Model(path=str(folder)), torch.device("cpu"))
    options = engine_options(
        Model(path=str(folder)), max_model_len=8, concurrency=1, device=torch.device("cpu"), resources=Resources()
    )
    assert (options["load_format"], options["trust_remote_code"]) == ("safetensors", False)
