"""NaN and infinity in a run: the step is named, the batch written down, the optimizer step not taken."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from tests.trainer.running import curve, events, finish, lines, result
from trainer.exits import Exit
from trainer.first_run import character_tokenizer
from trainer.policy import Policy

TOO_LARGE = 3e38  # finite, and so are the log-probabilities of a sequence that holds it; its square, in the gradient, is not


@pytest.fixture(scope="module")
def poisoned_model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A model with one weight of TOO_LARGE, in the input embedding of the token for 9; and that token."""
    tokenizer = character_tokenizer()
    (nine,) = tokenizer.encode("9")
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=128,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        max_position_embeddings=128,
        tie_word_embeddings=False,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        dtype=torch.float32,
    )
    model = Qwen3ForCausalLM(config)
    with torch.no_grad():
        model.model.embed_tokens.weight[nine, 0] = TOO_LARGE
    folder = tmp_path_factory.mktemp("poisoned")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder, nine


def poisoned_spec(model: Path, data: Path, **optimizer: Any) -> dict[str, Any]:
    """Four steps of four updates of one prompt each."""
    return {
        "steps": 4,
        "updates_per_batch": 4,
        "model": {"path": str(model)},
        "dataset": {"path": str(data)},
        "rollout": {"engine": "transformers", "prompts_per_step": 4, "group_size": 2, "max_new_tokens": 3},
        "optimizer": {"lr": 1e-4, **optimizer},
        "rewards": [{"type": "regex", "pattern": "[0-9a-z]"}],
        "checkpoints": {"every": 2},
    }


def holds(line: dict[str, Any], token: int) -> bool:
    """Whether the model was given `token`: the last of a completion is only predicted."""
    return token in [*line["prompt_token_ids"], *line["completion_token_ids"][:-1]]


@pytest.mark.slow
def test_updates_that_are_not_finite_are_passed_over(poisoned_model: tuple[Path, int], sums_file: Path, tmp_path: Path) -> None:
    model, nine = poisoned_model
    assert finish(poisoned_spec(model, sums_file, max_skipped_updates=16), tmp_path) == Exit.DONE, (
        tmp_path / "trainer.log"
    ).read_text()
    warnings = events(tmp_path, "not_finite")
    skipped = len(warnings)
    assert 0 < skipped < 16, "some updates hold the token, and some do not"
    assert [line["data"]["skipped_updates"] for line in warnings] == list(range(1, skipped + 1))
    assert all(line["level"] == "warn" and "gradient norm nan" in line["message"] for line in warnings)
    assert curve(tmp_path)[4]["skipped_updates"] == skipped
    state = tmp_path / "checkpoints" / "step_4" / "trainer_state"
    assert torch.load(state / "learner.pt", weights_only=True)["updates"] == 16 - skipped
    assert json.loads((state / "progress.json").read_text())["skipped"] == skipped
    dumped = {(line["step"], line["update"]) for step in range(1, 5) for line in failures(tmp_path, step)}
    assert dumped == {(line["step"], line["data"]["update"]) for line in warnings}
    for step, update in dumped:
        own = [line for line in failures(tmp_path, step) if line["update"] == update]
        assert len(own) == 2, "the completions of one prompt"
        assert any(holds(line, nine) for line in own)


def failures(folder: Path, step: int) -> list[dict[str, Any]]:
    return lines(folder / "failures", f"step_{step}")


@pytest.mark.slow
def test_one_more_than_may_be_passed_over_stops_the_run(
    poisoned_model: tuple[Path, int], sums_file: Path, tmp_path: Path
) -> None:
    model, _ = poisoned_model
    assert finish(poisoned_spec(model, sums_file, max_skipped_updates=1), tmp_path) == Exit.USER
    first, second = events(tmp_path, "not_finite")
    assert (first["level"], second["level"]) == ("warn", "error")
    found = result(tmp_path)
    assert (found["code"], found["fault"]) == ("numeric", "user")
    assert found["message"] == second["message"]
    assert found["message"].startswith(f"step {second['step']}: loss ")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("lr", "says"),
    [
        (1e30, "gradient norm nan at optimizer step 2"),  # weights that are finite and whose squares are not
        (1e16, "log-probabilities are not finite at optimizer step 2"),  # weights whose products are not
    ],
)
def test_a_learning_rate_that_breaks_the_weights(tiny_spec: dict[str, Any], tmp_path: Path, lr: float, says: str) -> None:
    """Step 1 is cut into two updates: the first breaks the weights, and the second meets them."""
    spec = tiny_spec | {"updates_per_batch": 2, "optimizer": {"lr": lr, "max_skipped_updates": 0}}
    assert finish(spec, tmp_path) == Exit.USER
    message = result(tmp_path)["message"]
    assert message.startswith("step 1: ")
    assert message.endswith(f"{says}; the step was not taken; its batch is in failures/step_1.jsonl")
    dumped = failures(tmp_path, 1)
    assert len(dumped) == 8
    for line in dumped:
        assert len(line["completion_token_ids"]) == len(line["logprobs"]) == len(line["old_logprobs"])
        assert all((value == "nan") == (lr == 1e16) for value in line["logprobs"])
        assert all(isinstance(value, float) for value in [*line["old_logprobs"], *line["sampler_logprobs"], line["advantage"]])
    assert not curve(tmp_path)
    assert not list(tmp_path.glob("checkpoints/*/COMPLETE"))


@pytest.mark.slow
@pytest.mark.parametrize(("every", "step"), [(1, 1), (2, 2)])
def test_broken_weights_are_neither_saved_nor_sampled_with(
    tiny_spec: dict[str, Any], tmp_path: Path, every: int, step: int
) -> None:
    """However many updates may be skipped: no later one could be finite."""
    spec = tiny_spec | {"optimizer": {"lr": 1e16, "max_skipped_updates": 100}, "checkpoints": {"every": every}}
    assert finish(spec, tmp_path) == Exit.USER
    says = f"step {step}: the policy's log-probabilities are not finite: an earlier update has broken its weights"
    assert result(tmp_path)["message"] == says
    assert [line["message"] for line in events(tmp_path, "not_finite")] == [says]
    assert not list(tmp_path.glob("checkpoints/*/COMPLETE"))


@pytest.mark.slow
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_model_with_a_weight_that_is_no_number_is_refused(
    tiny_spec: dict[str, Any], tiny_model: Path, tmp_path: Path, value: float
) -> None:
    from trainer.config import Model

    policy = Policy.load(Model(path=str(tiny_model)), torch.device("cpu"), temperature=1.0)
    with torch.no_grad():
        policy.model.get_parameter("model.layers.1.mlp.up_proj.weight")[3, 5] = value
    policy.model.save_pretrained(tmp_path / "model")
    policy.tokenizer.save_pretrained(tmp_path / "model")
    assert finish(tiny_spec | {"model": {"path": str(tmp_path / "model")}}, tmp_path / "run") == Exit.USER
    says = f"model.path: '{tmp_path / 'model'}' has weights that are NaN or infinite: model.layers.1.mlp.up_proj.weight"
    assert result(tmp_path / "run")["message"] == says
