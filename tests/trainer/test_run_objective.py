"""What the sections loss, advantages, overlong, kl and correction change in whole runs, also in one that is resumed."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from trainer.config import JobSpec
from trainer.metrics import is_wall_clock
from trainer.run_folder import RunFolder, read_lines
from trainer.stopping import StopSignal
from trainer.train import train

STEPS = 3
Curve = list[dict[str, float]]


@pytest.fixture
def document(tiny_spec: dict[str, Any]) -> dict[str, Any]:
    """A reward of 1 for a short answer with a digit first: many groups of two have equal rewards."""
    return tiny_spec | {
        "steps": STEPS,
        "rollout": tiny_spec["rollout"] | {"group_size": 2, "max_new_tokens": 8},
        "rewards": [{"type": "regex", "pattern": "^[0-9]"}],
        "checkpoints": {"every": 1, "keep": STEPS},
        "resources": {"threads": 1},
    }


def run(document: dict[str, Any], folder: Path) -> Curve:
    """The metrics of each step, without what depends on the clock."""
    train(JobSpec.parse(document), RunFolder(folder), StopSignal())
    return curve(folder)


def curve(folder: Path) -> Curve:
    lines = read_lines(folder / "metrics.jsonl")
    return [{name: value for name, value in line["metrics"].items() if not is_wall_clock(name)} for line in lines]


def samples(folder: Path, step: int) -> list[dict[str, Any]]:
    return read_lines(folder / "samples" / f"step_{step}.jsonl")


def rewards(group: dict[str, Any]) -> set[float]:
    return {completion["reward"] for completion in group["completions"]}


RESAMPLE: dict[str, Any] = {"advantages": {"zero_variance": {"type": "resample", "max_extra_prompts": 5}}}
KL: dict[str, Any] = {"kl": {"type": "loss", "coefficient": 0.1}}


def test_resampling_draws_further_problems_and_goes_on_from_a_checkpoint(document: dict[str, Any], tmp_path: Path) -> None:
    """With a KL from the base model too, which a resumed run must load again as it was before any step."""
    document |= RESAMPLE | KL
    whole = run(document, tmp_path / "whole")
    drawn = [len(samples(tmp_path / "whole", step)) for step in range(1, STEPS + 1)]
    signal = [sum(len(rewards(g)) > 1 for g in samples(tmp_path / "whole", step)) for step in range(1, STEPS + 1)]
    assert all(count <= 9 and found <= 4 for count, found in zip(drawn, signal, strict=True))
    assert any(count > 4 for count in drawn), "else this shows nothing"
    assert all(found == 4 or count == 9 for count, found in zip(drawn, signal, strict=True))
    assert [m["zero_variance/extra_prompts"] for m in whole] == [count - 4 for count in drawn]
    assert [m["zero_variance/groups"] for m in whole] == [c - f for c, f in zip(drawn, signal, strict=True)]
    progress = json.loads((tmp_path / "whole" / "checkpoints" / "step_3" / "trainer_state" / "progress.json").read_text())
    assert progress["position"] == sum(drawn)
    warned = [e["step"] for e in read_lines(tmp_path / "whole" / "events.jsonl") if e["type"] == "warning"]
    assert warned == [step for step, found in enumerate(signal, start=1) if found < 4]
    problems = [g["problem_id"] for step in range(1, STEPS + 1) for g in samples(tmp_path / "whole", step)]
    assert len(set(problems)) == len(problems), "no problem is drawn twice in an epoch"

    assert whole[0]["kl"] == pytest.approx(0, abs=1e-9)
    assert whole[2]["kl"] > 1e-6
    shutil.copytree(tmp_path / "whole" / "checkpoints" / "step_1", tmp_path / "resumed" / "checkpoints" / "step_1")
    assert run(document, tmp_path / "resumed") == whole[1:]
    for step in (2, 3):
        assert samples(tmp_path / "resumed", step) == samples(tmp_path / "whole", step)


@pytest.fixture(scope="module")
def plain(tiny_model: Path, sums_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Curve]:
    """Where the run without a change is remembered."""
    return {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "metrics"),
    [
        ({"loss": {"aggregation": "token_mean"}}, ()),
        ({"loss": {"aggregation": "sequence_sum"}}, ()),
        ({"loss": {"aggregation": "sequence_sum", "constant": 3}}, ()),
        ({"loss": {"entropy_coefficient": 0.1}}, ()),
        ({"advantages": {"type": "group_mean"}}, ()),
        ({"advantages": {"type": "leave_one_out"}}, ()),
        ({"advantages": {"type": "batch_std"}}, ()),
        ({"advantages": {"zero_variance": {"type": "skip"}}}, ()),
        (RESAMPLE, ()),
        ({"overlong": {"type": "mask"}}, ()),
        ({"overlong": {"type": "soft_punishment", "buffer": 6}}, ("overlong/penalty_mean", "overlong/punished")),
        (
            {"overlong": {"type": "soft_punishment", "buffer": 6, "penalty": 9.0}},
            ("overlong/penalty_mean", "overlong/punished"),
        ),
        (KL, ("kl",)),
        ({"kl": {"type": "loss", "coefficient": 0.1, "estimator": "k1"}}, ("kl",)),
        ({"kl": {"type": "loss", "coefficient": 0.1, "estimator": "k2"}}, ("kl",)),
        ({"kl": {"type": "reward", "coefficient": 5.0}}, ("kl", "kl/penalty_mean")),
        ({"kl": {"type": "reward", "coefficient": 5.0, "estimator": "k3"}}, ("kl", "kl/penalty_mean")),
        ({"correction": {"type": "truncate", "at_most": 0.5}}, ()),
        ({"correction": {"type": "truncate", "level": "sequence", "at_most": 0.5}}, ()),
        ({"correction": {"type": "mask", "low": 1.0, "high": 1.0}}, ()),
        ({"correction": {"type": "none"}}, ()),
    ],
    ids=str,
)
def test_each_field_changes_the_run(
    document: dict[str, Any], plain: dict[str, Curve], tmp_path: Path, change: dict[str, Any], metrics: tuple[str, ...]
) -> None:
    """By the gradient norms: those of the first step, or where the policy must have moved first, of a later one."""
    nucleus = document["rollout"] | {"top_p": 0.9}  # else learner and sampler agree, and there is nothing to correct
    document |= {"rollout": nucleus, "optimizer": {"lr": 1e-3, "max_grad_norm": None}}
    if "plain" not in plain:
        plain["plain"] = run(document, tmp_path / "plain")
    changed = run(document | change, tmp_path / "changed")
    before, after = ([step.get("grad_norm", 0.0) for step in steps] for steps in (plain["plain"], changed))
    assert any(abs(a - b) > 1e-3 * b for a, b in zip(after, before, strict=True)), (before, after)
    added = {name for name in set(changed[0]) - set(plain["plain"][0]) if not name.startswith("completions/")}
    assert added == set(metrics)
