"""rollout.staleness: which weights sample what, what the ratio is taken of, and that nothing of it is lost."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.trainer.running import assert_same_run, curve, finish, lines, start, wait_for_step
from trainer.config import JobSpec, Model, Resources
from trainer.data import ProblemOrder, load_problems
from trainer.exits import Exit
from trainer.policy import Policy
from trainer.prompts import encode_prompts
from trainer.rollout.open import open_sampler
from trainer.rollout.queue import Order, RolloutQueue, SampledBatch
from trainer.rollout.queue_state import pack, unpack
from trainer.rollout.sampler import SampleRequest, SamplingSettings, sample_seed
from trainer.rollout.sampling_weights import SamplingWeights
from trainer.strict import SpecError
from trainer.types import Completion, Problem

CPU = torch.device("cpu")
PROBLEM = Problem("a", 3, "1+1=", "2")


def stale(spec: dict[str, Any], k: int, **rest: Any) -> dict[str, Any]:
    return spec | {"rollout": spec["rollout"] | {"staleness": k}} | rest


@pytest.fixture(scope="module")
def stale_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, sums_file: Path) -> tuple[dict[str, Any], Path]:
    """Six steps of two updates on what the weights of two batches before sampled; a checkpoint of each step."""
    spec: dict[str, Any] = {
        "steps": 6,
        "updates_per_batch": 2,
        "model": {"path": str(tiny_model)},
        "dataset": {"path": str(sums_file)},
        "rollout": {"engine": "transformers", "prompts_per_step": 4, "group_size": 4, "max_new_tokens": 12, "staleness": 2},
        "optimizer": {"lr": 1e-3},
        "rewards": [{"type": "length", "target": 2, "limit": 12}],
        "checkpoints": {"every": 1, "keep": 6},
    }
    folder = tmp_path_factory.mktemp("stale") / "run"
    assert finish(spec, folder) == Exit.DONE, (folder / "trainer.log").read_text()
    return spec, folder


def policy_of(spec: dict[str, Any], folder: Path, step: int) -> Policy:
    """The policy after `step` steps."""
    path = folder / "checkpoints" / f"step_{step}" if step else Path(spec["model"]["path"])
    return Policy.load(Model(path=str(path)), CPU, temperature=1.0)


@pytest.mark.slow
def test_the_lag_of_each_sample_is_known_and_bounded(stale_run: tuple[dict[str, Any], Path]) -> None:
    """Two updates a step: the batch of step 5 was sampled after 4 updates and is trained on by updates 9 and 10."""
    _, folder = stale_run
    found = curve(folder)
    lags = [(found[step]["off_policy/lag/mean"], found[step]["off_policy/lag/max"]) for step in range(1, 7)]
    assert lags == [(0.5, 1), (2.5, 3), (4.5, 5), (4.5, 5), (4.5, 5), (4.5, 5)]
    assert abs(found[6]["ratio/mean"] - 1) > 1e-3, "four updates have moved the policy from the one that sampled"
    assert max(metrics["sampling/sampling_logp_difference/max"] for metrics in found.values()) < 1e-5, (
        "old policy and sampler are the same weights, whatever the lag"
    )


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 4, 6])
def test_a_step_trains_on_what_the_weights_of_k_batches_before_sampled(
    stale_run: tuple[dict[str, Any], Path], step: int
) -> None:
    document, folder = stale_run
    spec = JobSpec.parse(document)
    policy = policy_of(document, folder, max(0, step - 3))
    problems = ProblemOrder(load_problems(spec.dataset), shuffle=True, seed=0).take(4 * (step - 1), 4)
    prompts = encode_prompts(policy.tokenizer, problems, chat_template=False, system_prompt=None)
    sampler = open_sampler(
        "transformers",
        Model(path=str(policy.model.name_or_path)),
        policy.tokenizer,
        max_model_len=64,
        concurrency=16,
        device=CPU,
        resources=Resources(),
    )
    requests = [
        SampleRequest(ids, tuple(sample_seed(0, step, problem.index, i) for i in range(4)))
        for ids, problem in zip(prompts, problems, strict=True)
    ]
    expected = [[c.text for c in group] for group in sampler.generate(requests, SamplingSettings(12))]
    assert [[c["text"] for c in group["completions"]] for group in lines(folder / "samples", f"step_{step}")] == expected


@pytest.mark.slow
def test_the_old_policy_is_the_one_that_sampled(stale_run: tuple[dict[str, Any], Path]) -> None:
    """The queue of step 3 holds the batches of steps 4 and 5, sampled by the weights of steps 1 and 2."""
    document, folder = stale_run
    state = torch.load(folder / "checkpoints" / "step_3" / "trainer_state" / "queue.pt", weights_only=True)
    batches = [unpack(batch) for batch in state]
    assert [(batch.order.step, batch.order.sampled_at, batch.order.version) for batch in batches] == [(4, 1, 2), (5, 2, 4)]
    for batch in batches:
        policy = policy_of(document, folder, batch.order.sampled_at)
        for problem, group in zip(batch.order.problems, batch.completions, strict=True):
            prompt = tuple(policy.tokenizer.encode(problem.prompt))
            for completion in group:
                (expected,) = policy.token_logprobs([prompt + completion.token_ids])
                assert completion.old_logprobs == pytest.approx(expected[-len(completion.token_ids) :], abs=2e-5)
    last = folder / "checkpoints" / "step_6" / "trainer_state" / "queue.pt"
    assert torch.load(last, weights_only=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["transformers", "vllm"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_stale_run_that_is_ended_goes_on_exactly(
    tiny_spec: dict[str, Any], tmp_path_factory: pytest.TempPathFactory, tmp_path: Path, engine: str, number: signal.Signals
) -> None:
    spec = stale(tiny_spec, 2, updates_per_batch=2, max_drift=0.05, resources={"kv_cache_mb": 64})
    spec["algorithm"] = {"type": "mhpo", "zero_region": True, "zero_region_since": "batch"}
    spec["rollout"]["engine"] = engine
    whole = tmp_path_factory.getbasetemp() / f"whole-stale-{engine}"
    if not whole.exists():
        assert finish(spec, whole) == Exit.DONE, (whole / "trainer.log").read_text()
    process = start(spec, tmp_path)
    wait_for_step(process, tmp_path, 3)
    os.killpg(process.pid, number)
    code = process.wait(60)
    assert code == (Exit.STOPPED if number == signal.SIGTERM else -signal.SIGKILL)
    assert finish(spec, tmp_path) == Exit.DONE, (tmp_path / "trainer.log").read_text()
    assert_same_run(tmp_path, whole)


@pytest.mark.slow
def test_vllm_generates_while_the_learner_does_something_else(tiny_model: Path) -> None:
    policy = Policy.load(Model(path=str(tiny_model)), CPU, temperature=1.0)
    sampler = open_sampler(
        "vllm",
        Model(path=str(tiny_model)),
        policy.tokenizer,
        max_model_len=64,
        concurrency=64,
        device=CPU,
        resources=Resources(kv_cache_mb=64),
    )
    requests = [SampleRequest((3, 4, 5), tuple(range(256)))]
    asked = time.perf_counter()
    sampler.start(requests, SamplingSettings(40))
    free = time.perf_counter()
    later = sampler.finish()
    done = time.perf_counter()
    assert free - asked < 0.1 * (done - free)
    assert later == sampler.generate(requests, SamplingSettings(40))
    sampler.close()


def test_which_batches_are_due() -> None:
    def queue_after(step: int, k: int, waiting: int) -> RolloutQueue:
        batches = [SampledBatch(Order(step + i, 0, 0, ()), ()) for i in range(waiting)]
        return RolloutQueue(k, last_step=10, batches=batches)

    assert list(queue_after(1, 0, 0).due(1)) == [1]
    assert list(queue_after(1, 2, 0).due(1)) == [1, 2, 3]
    assert list(queue_after(4, 2, 2).due(4)) == [6]
    assert list(queue_after(4, 2, 3).due(4)) == []  # stopped while it was graded, and saved whole
    assert list(queue_after(9, 2, 2).due(9)) == []
    assert list(RolloutQueue(6, last_step=3).due(1)) == [1, 2, 3]


def test_a_batch_beyond_the_bound_is_never_trained_on() -> None:
    fresh, old = SampledBatch(Order(4, 3, 3, ()), ()), SampledBatch(Order(4, 0, 0, ()), ())
    assert RolloutQueue(2, 10, [fresh]).of_step(4) == fresh
    with pytest.raises(AssertionError):
        RolloutQueue(2, 10, [old]).of_step(4)
    with pytest.raises(AssertionError):
        RolloutQueue(0, 10, [fresh]).ask(Order(5, 3, 3, ()))


def test_a_batch_survives_its_checkpoint_bit_for_bit(tmp_path: Path) -> None:
    one = Completion((5, 6), "ab", (-0.1, -1e-40), "stop", old_logprobs=(-0.30000001192092896, -2.5))
    two = Completion((7,), "ü\x00", (-float("inf"),), "length", old_logprobs=(float(torch.tensor(1 / 3)),))
    batch = SampledBatch(Order(7, 4, 8, (PROBLEM, PROBLEM)), ((one, two), (two,)))
    torch.save([pack(batch)], tmp_path / "queue.pt")
    assert [unpack(state) for state in torch.load(tmp_path / "queue.pt", weights_only=True)] == [batch]
    plain = SampledBatch(Order(1, 0, 0, (PROBLEM,)), ((Completion((1,), "x", (-1.0,), "stop"),),))
    assert unpack(pack(plain)) == plain


def test_the_kept_weights_change_places_and_nothing_else(tiny_model: Path) -> None:
    policy = Policy.load(Model(path=str(tiny_model)), CPU, temperature=1.0)
    first = {name: weight.clone() for name, weight in policy.weights()}
    kept = SamplingWeights(policy)
    kept.keep()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(2)
    for _ in range(2):
        with kept.in_place():
            assert all(weight.equal(first[name]) for name, weight in policy.weights())
        assert all(weight.equal(2 * first[name]) for name, weight in policy.weights())


def test_resampling_and_staleness_exclude_each_other(tiny_spec: dict[str, Any]) -> None:
    resampling = {"zero_variance": {"type": "resample"}}
    with pytest.raises(SpecError, match=r"set rollout\.staleness = 0"):
        JobSpec.parse(stale(tiny_spec, 1, advantages=resampling))
    JobSpec.parse(stale(tiny_spec, 0, advantages=resampling))
