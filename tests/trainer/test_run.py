"""`python -m trainer` as a process: what it writes, how it ends, and that a killed run goes on exactly where it was."""

import json
import math
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoModelForCausalLM

from tests.trainer.running import DEADLINE, assert_same_run, curve, finish, lines, samples, start, wait_for_step
from trainer.exits import Exit


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, sums_file: Path) -> tuple[dict[str, Any], Path]:
    """A finished run of six steps, with validation and two updates a batch."""
    spec: dict[str, Any] = {
        "steps": 6,
        "updates_per_batch": 2,
        "model": {"path": str(tiny_model)},
        "dataset": {"path": str(sums_file), "validation_size": 8},
        "rollout": {"engine": "transformers", "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 12},
        "optimizer": {"lr": 1e-3, "schedule": "cosine"},
        "rewards": [{"type": "length", "target": 2, "limit": 12}, {"type": "regex", "pattern": "[0-9]", "weight": 0.5}],
        "checkpoints": {"every": 2, "keep": 2},
    }
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert finish(spec, folder) == Exit.DONE, (folder / "trainer.log").read_text()
    return spec, folder


def test_what_a_run_leaves(whole_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = whole_run
    assert json.loads((folder / "result.json").read_text())["status"] == "succeeded"
    found = curve(folder)
    assert list(found) == [1, 2, 3, 4, 5, 6]
    assert {
        "reward",
        "reward_std",
        "rewards/length/mean",
        "rewards/regex/std",
        "frac_reward_zero_std",
        "loss",
        "grad_norm",
    } <= found[1].keys()
    assert {"entropy", "kl/rollout", "ratio/max", "sampling/sampling_logp_difference/mean", "mhpo/psi_saturation"} <= found[
        1
    ].keys()
    assert found[1]["mhpo/survival_on_policy"] == pytest.approx(0.265, abs=1e-3)
    assert found[1]["sampling/probe_difference"] < 1e-4
    assert [step for step, metrics in found.items() if "eval/reward" in metrics] == [2, 4, 6]
    assert found[6]["reward"] > found[1]["reward"], "a reward for short answers is easily learnt"
    timed = lines(folder, "metrics")[0]["metrics"]
    split = sum(timed[f"time/{part}"] for part in ("rollout", "rewards", "learner", "sync", "other"))
    assert split == pytest.approx(timed["step_time"])
    assert [e["data"]["step"] for e in lines(folder, "events") if e["type"] == "checkpoint"] == [2, 4, 6]
    best = max(sorted(found)[1::2], key=lambda step: found[step]["eval/reward"])  # the first of equal ones
    assert {p.name for p in (folder / "checkpoints").iterdir()} == {"step_4", "step_6", f"step_{best}"}
    assert len(samples(folder)) == 6


def test_samples_add_up_to_the_metrics(whole_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = whole_run
    groups = lines(folder / "samples", "step_3")
    completions = [c for group in groups for c in group["completions"]]
    assert (len(groups), len(completions)) == (4, 16)
    assert sum(c["reward"] for c in completions) / 16 == pytest.approx(curve(folder)[3]["reward"])
    for c in completions:
        assert c["reward"] == pytest.approx(c["by_grader"]["length"] + 0.5 * c["by_grader"]["regex"])
    assert sum(c["tokens"] for c in completions) / 16 == pytest.approx(curve(folder)[3]["completions/mean_length"])
    for group in groups:
        assert sum(c["advantage"] for c in group["completions"]) == pytest.approx(0, abs=1e-6)


def test_samples_hold_what_the_update_saw_of_their_tokens(whole_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = whole_run
    groups = lines(folder / "samples", "step_3")
    traced = [(c, c["token_trace"]) for group in groups for c in group["completions"] if "token_trace" in c]
    assert traced
    names = {"text", "log_ratio", "sampler_difference", "multiplier", "survival"}
    for completion, trace in traced:
        assert set(trace) == names
        assert {len(values) for values in trace.values()} == {completion["tokens"]}
        assert re.sub("<[a-z]+>", "", "".join(trace["text"])) == completion["text"], "but for special tokens"
    told = curve(folder)[3]  # of the same tokens: this run has no more than are kept
    values = {name: [value for _, trace in traced for value in trace[name]] for name in names}
    assert max(map(abs, values["sampler_difference"])) == pytest.approx(told["sampling/sampling_logp_difference/max"], rel=1e-3)
    assert math.exp(max(values["log_ratio"])) == pytest.approx(told["ratio/max"], rel=1e-3)
    assert min(values["survival"]) == pytest.approx(told["mhpo/survival_min"], rel=1e-3)
    assert max(values["multiplier"]) == pytest.approx(told["multiplier/max"], rel=1e-3)


def test_a_checkpoint_is_a_hugging_face_model(whole_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = whole_run
    model = AutoModelForCausalLM.from_pretrained(folder / "checkpoints" / "step_6")
    assert sum(p.numel() for p in model.parameters()) == 607_296


@pytest.mark.slow
def test_finished_runs_do_nothing_more(whole_run: tuple[dict[str, Any], Path]) -> None:
    _, folder = whole_run
    before = (folder / "metrics.jsonl").read_text()
    assert (
        subprocess.run([sys.executable, "-m", "trainer", str(folder)], check=False, capture_output=True).returncode == Exit.DONE
    )
    assert (folder / "metrics.jsonl").read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_sigkill_between_checkpoints_changes_nothing(
    whole_run: tuple[dict[str, Any], Path], tmp_path: Path, killed_after: int
) -> None:
    spec, whole = whole_run
    process = start(spec, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", killed_after)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    with (tmp_path / "run" / "metrics.jsonl").open("a") as torn:
        torn.write('{"step": 99, "metr')  # a kill in mid-write
    assert finish(spec, tmp_path / "run") == Exit.DONE
    assert_same_run(tmp_path / "run", whole)
    resumed = [e["step"] for e in lines(tmp_path / "run", "events") if e["type"] == "resumed"]
    assert resumed == [killed_after - 1], "0 where there was no checkpoint"


@pytest.mark.slow
def test_sigterm_saves_the_last_finished_step(whole_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    spec, whole = whole_run
    process = start(spec, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 3)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(DEADLINE) == Exit.STOPPED
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    saved = [e["data"]["step"] for e in lines(tmp_path / "run", "events") if e["type"] == "checkpoint"]
    assert result["status"] == "stopped"
    assert saved[-1] == max(curve(tmp_path / "run")) == result["step"] >= 3
    assert finish(spec, tmp_path / "run") == Exit.DONE
    assert_same_run(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_half_written_checkpoint_is_ignored(whole_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    spec, whole = whole_run
    process = start(spec, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 4)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    checkpoints = tmp_path / "run" / "checkpoints"
    (checkpoints / "step_5.unfinished").mkdir()
    (checkpoints / "step_5").mkdir()  # renamed, and killed before the marker
    (checkpoints / "step_5" / "config.json").write_text("{")
    assert finish(spec, tmp_path / "run") == Exit.DONE
    assert_same_run(tmp_path / "run", whole)


def run_quietly(spec: dict[str, Any], folder: Path) -> tuple[int, dict[str, Any], str]:
    """Exit code, result.json and log of a run that fails."""
    code = finish(spec, folder)
    return code, json.loads((folder / "result.json").read_text()), (folder / "trainer.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": {"path": "nowhere.jsonl"}}, "dataset.path: no file 'nowhere.jsonl'"),
        ({"model": {"path": "no-such-folder"}}, "model.path: no folder 'no-such-folder'"),
        ({"rollout": {"group_size": 1}}, "rollout.group_size: "),
        (
            {"rollout": {"engine": "transformers", "max_new_tokens": 121}},
            "rollout.max_new_tokens: the longest prompt has 12 tokens, and 121 more do not fit the model's context of 128",
        ),
    ],
)
def test_the_users_fault(tiny_spec: dict[str, Any], tmp_path: Path, change: dict[str, Any], says: str) -> None:
    code, result, log = run_quietly(tiny_spec | change, tmp_path / "run")
    assert (code, result["status"], result["fault"]) == (Exit.USER, "failed", "user")
    assert result["message"].startswith(says)
    assert "Traceback" not in log


def test_another_spec_in_the_same_folder_is_refused(whole_run: tuple[dict[str, Any], Path], tmp_path: Path) -> None:
    spec, folder = whole_run
    other = tmp_path / "other.json"
    other.write_text(json.dumps(spec | {"seed": 1}))
    command = [sys.executable, "-m", "trainer", str(other), "--out", str(folder)]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)
    assert ended.returncode == Exit.USER
    assert "holds a run of another spec" in ended.stderr
    assert json.loads((folder / "result.json").read_text())["status"] == "succeeded", "what was stored is not touched"


@pytest.mark.slow
def test_with_vllm_sigkill_leaves_no_process_and_the_run_resumes(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    spec = tiny_spec | {"rollout": tiny_spec["rollout"] | {"engine": "vllm"}, "resources": {"kv_cache_mb": 64}}
    assert finish(spec, tmp_path / "whole") == Exit.DONE, (tmp_path / "whole" / "trainer.log").read_text()
    process = start(spec, tmp_path / "run")
    wait_for_step(process, tmp_path / "run", 3)
    children = psutil.Process(process.pid).children(recursive=True)
    assert any("trainer.rollout.vllm_child" in child.cmdline() for child in children)
    os.kill(process.pid, signal.SIGKILL)  # the trainer alone, not its group
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive
    assert finish(spec, tmp_path / "run") == Exit.DONE
    assert_same_run(tmp_path / "run", tmp_path / "whole")
