"""What the sampler has is what the learner has: a corrupted push stops the run, and a run that learns nothing stays flat."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from tests.trainer.running import curve, finish, result
from trainer.exits import Exit

ENGINES = ["transformers", "vllm"]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_one_weight_corrupted_in_transit_stops_the_run(tiny_spec: dict[str, Any], tmp_path: Path, engine: str) -> None:
    spec = tiny_spec | {"rollout": tiny_spec["rollout"] | {"engine": engine}, "resources": {"kv_cache_mb": 64}}
    assert finish(spec, tmp_path, module="tests.trainer.corrupted") == Exit.SYSTEM, (tmp_path / "trainer.log").read_text()
    found = result(tmp_path)
    assert (found["status"], found["fault"], found["code"]) == ("failed", "system", "weight_sync")
    assert "the engine's log-probabilities differ from the learner's" in found["message"]
    assert list(curve(tmp_path)) == [1], "nothing was sampled with the corrupted weights"


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "steps"), [("transformers", 200), ("vllm", 50)])
def test_without_learning_sampler_and_learner_stay_as_far_apart_as_they_were(
    tiny_spec: dict[str, Any], tmp_path: Path, engine: str, steps: int
) -> None:
    """At a learning rate that moves no weight by a bit, weights are pushed after every step all the same."""
    spec = tiny_spec | {
        "steps": steps,
        "rollout": {"engine": engine, "prompts_per_step": 4, "group_size": 2, "max_new_tokens": 6},
        "optimizer": {"lr": 1e-30},
        "checkpoints": {"every": steps},
        "resources": {"kv_cache_mb": 64},
    }
    assert finish(spec, tmp_path) == Exit.DONE, (tmp_path / "trainer.log").read_text()
    found = list(curve(tmp_path).values())
    assert len(found) == steps
    mean = [metrics["sampling/sampling_logp_difference/mean"] for metrics in found]
    quarter = steps // 4
    assert max(metrics["sampling/sampling_logp_difference/max"] for metrics in found) < 1e-5, "float32 rounding, nats"
    assert fmean(mean[-quarter:]) == pytest.approx(fmean(mean[:quarter]), rel=0.25), "no drift"
    assert len({metrics["sampling/probe_difference"] for metrics in found}) == 1, "each push brings the same weights"
