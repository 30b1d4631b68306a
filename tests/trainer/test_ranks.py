"""Several processes that share an optimizer step: the numbers of one alone, and no step where one is missing or has others."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
import torch
from torch import Tensor

from tests.trainer.running import assert_same_run, curve, events, finish, result, start, wait_for_step
from tests.trainer.seen import flat_gradient, recorded_logprobs
from trainer.batch import TrainSequence
from trainer.config import JobSpec
from trainer.exits import Exit
from trainer.learner import Before, DriftedError, Learner, NotFiniteError, TokenRecord
from trainer.opening import load_policy, new_learner, share_threads
from trainer.policy import DTYPES, Policy, load_model, load_reference
from trainer.ranks import Leader, RankError, Ranks, Setup
from trainer.rollout.probe import WeightProbe
from trainer.rollout.sampler import SampleRequest, SamplingSettings, WeightSyncError
from trainer.rollout.shared_sampler import SharedSampler
from trainer.strict import SpecError

CPU = torch.device("cpu")


def spec_of(tiny_spec: dict[str, Any], learners: int, **more: Any) -> JobSpec:
    resources = {"learners": learners, "micro_batch_tokens": 60, "threads": 1}
    return JobSpec.parse(tiny_spec | {"resources": resources} | more)


@contextmanager
def ranks_of(spec: JobSpec, module: str) -> Iterator[Ranks]:
    """As many processes as the spec says, this one the leader."""
    threads = torch.get_num_threads()
    share_threads(spec.resources, CPU)
    ranks = Leader(Setup(spec, spec.model, None), CPU, module) if spec.resources.learners > 1 else Ranks()
    try:
        yield ranks
    finally:
        ranks.close()
        torch.set_num_threads(threads)


@contextmanager
def learner_of(spec: JobSpec, module: str = "trainer.rank_process") -> Iterator[tuple[Policy, Learner]]:
    """The learner in these processes, and the leader's policy."""
    with ranks_of(spec, module) as ranks:
        policy = load_policy(spec, spec.model, CPU)
        yield policy, new_learner(spec, policy, load_reference(spec, CPU), ranks)


@contextmanager
def sampler_of(spec: JobSpec, module: str = "trainer.rank_process") -> Iterator[tuple[Policy, SharedSampler]]:
    """The sampler in these processes, and the leader's policy."""
    with ranks_of(spec, module) as ranks:
        policy = load_policy(spec, spec.model, CPU)
        yield policy, SharedSampler(load_model(spec.model, CPU), policy.tokenizer, ranks)


def some_sequences(count: int) -> list[TrainSequence]:
    """A third of no advantage."""
    random, rows = Random(4), []
    for index in range(count):
        completion = tuple(random.randrange(3, 80) for _ in range(random.randint(1, 12)))
        rows.append(TrainSequence((5, 6, 7), completion, (-4.0,) * len(completion), float(index % 3 - 1)))
    return rows


@pytest.mark.slow
@pytest.mark.parametrize("learners", [2, 3])
@pytest.mark.parametrize("aggregation", ["sequence_mean_token_mean", "token_mean"])
def test_ranks_together_are_one_alone(
    tiny_spec: dict[str, Any], learners: int, aggregation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, to 1e-10, over two updates: denominators are those of all ranks."""
    monkeypatch.setitem(DTYPES, "float32", torch.float64)
    terms = {"loss": {"aggregation": aggregation, "entropy_coefficient": 0.01}, "kl": {"type": "loss", "coefficient": 0.05}}
    found: list[tuple[list[Any], Tensor, list[Tensor], list[Tensor]]] = []
    for count in (1, learners):
        with learner_of(spec_of(tiny_spec, count, **terms), "tests.trainer.rank_in_float64") as (policy, learner):
            old = [
                row + torch.linspace(-0.3, 0.3, len(row), dtype=torch.float64) for row in learner.logprobs(some_sequences(11))
            ]
            record = TokenRecord()
            updates = [learner.update(some_sequences(11), Before(old, old), one) for one in (TokenRecord(), record)]
            losses = [(update.loss, update.grad_norm) for update in updates]
            found.append((losses, flat_gradient(policy), recorded_logprobs(record, some_sequences(11)), old))
    alone, together = found
    assert torch.tensor(together[0]).sub(torch.tensor(alone[0])).abs().max() < 1e-10
    assert (together[1] - alone[1]).abs().max() < 1e-10
    for rows, others in ((together[2], alone[2]), (together[3], alone[3])):
        assert all((one - other).abs().max() < 1e-10 for one, other in zip(rows, others, strict=True))


@pytest.mark.slow
def test_a_step_that_is_not_taken_is_taken_by_no_rank(tiny_spec: dict[str, Any]) -> None:
    """Though the reason lies in the part of one of them; the next step is taken by all."""
    with learner_of(spec_of(tiny_spec, 2)) as (policy, learner):
        before = [p.clone() for p in policy.model.parameters()]
        good = some_sequences(6)
        for broken in range(len(good)):
            poisoned = [replace(row, sampler_logprobs=(float("nan"),) * len(row.sampler_logprobs)) for row in good]
            mixed = [poisoned[i] if i == broken else row for i, row in enumerate(good)]
            with pytest.raises(NotFiniteError, match="optimizer step 1; the step was not taken"):
                learner.update(mixed, Before(), TokenRecord())
        far = [row + 1.0 for row in learner.logprobs(good)]
        with pytest.raises(DriftedError):
            learner.update(good, Before(far, far), TokenRecord(), max_drift=0.5)
        assert all(torch.equal(a, b) for a, b in zip(before, policy.model.parameters(), strict=True))
        learner.update(good, Before(), TokenRecord())
        assert learner.updates == 1


@pytest.mark.slow
def test_one_bit_of_one_weight_is_seen(tiny_spec: dict[str, Any]) -> None:
    wrong = learner_of(spec_of(tiny_spec, 2), "tests.trainer.rank_gone_wrong")
    with wrong as (_, learner), pytest.raises(RankError, match="rank 1 has other weights than rank 0"):
        learner.update(some_sequences(6), Before(), TokenRecord())


@pytest.mark.slow
def test_ranks_sample_what_one_alone_would(tiny_spec: dict[str, Any]) -> None:
    """Each prompt's completions in their place, though there are fewer prompts than ranks or a part more."""
    settings = SamplingSettings(max_new_tokens=12)
    found = []
    for count in (1, 3):
        with sampler_of(spec_of(tiny_spec, count)) as (policy, sampler):
            sampler.push_weights(policy.weights(), 0)
            assert WeightProbe(policy, "float32").check(sampler) < 1e-5
            asked = [SampleRequest((5, 6, 7 + i), tuple(range(10 * i + 1, 10 * i + 2 + i))) for i in range(5)]
            found.append([sampler.generate(some, settings) for some in (asked, asked[:1], [])])
    alone, together = found
    assert [[len(one) for one in some] for some in together] == [[1, 2, 3, 4, 5], [1], []]
    assert [[[c.token_ids for c in one] for one in some] for some in together] == [
        [[c.token_ids for c in one] for one in some] for some in alone
    ]


@pytest.mark.slow
def test_a_rank_that_samples_with_other_weights_is_seen(tiny_spec: dict[str, Any]) -> None:
    wrong = sampler_of(spec_of(tiny_spec, 2), "tests.trainer.rank_sampler_gone_wrong")
    with wrong as (policy, sampler):
        sampler.push_weights(policy.weights(), 0)
        with pytest.raises(WeightSyncError, match="rank 1 samples with other weights than rank 0"):
            WeightProbe(policy, "float32").check(sampler)


@pytest.mark.slow
def test_a_run_of_two_learners_survives_the_end_of_either(tiny_spec: dict[str, Any], tmp_path: Path) -> None:
    """One killed: the run fails, by the system's fault, at once. The leader killed: no process stays. Resumed: bit for bit."""
    spec = tiny_spec | {"resources": {"learners": 2}}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert finish(spec, whole) == Exit.DONE, (whole / "trainer.log").read_text()

    process = start(spec, killed)
    wait_for_step(process, killed, 2)
    os.kill(rank_of(process.pid).pid, signal.SIGKILL)
    assert process.wait(60) == Exit.SYSTEM
    ended = result(killed)
    assert (ended["fault"], ended["code"]) == ("system", "learner_rank")
    assert ended["message"] == "RankError: rank 1 of the learner has ended with exit code -9"

    process = start(spec, killed)
    wait_for_step(process, killed, 4)
    rank = rank_of(process.pid)
    process.kill()
    process.wait()
    assert rank.wait(30) is None, "it ended with its leader"
    assert finish(spec, killed) == Exit.DONE, (killed / "trainer.log").read_text()
    assert_same_run(killed, whole)
    assert len(events(killed, "resumed")) == 2

    alone = tmp_path / "alone"
    assert finish(tiny_spec, alone) == Exit.DONE
    first, same = curve(whole)[1], curve(alone)[1]
    assert first.keys() == same.keys()
    assert first == pytest.approx(same, rel=1e-4, abs=1e-5)


def rank_of(leader: int) -> psutil.Process:
    [rank] = [p for p in psutil.Process(leader).children() if "trainer.rank_process" in p.cmdline()]
    return rank


def test_learners_want_a_gpu_each(tiny_spec: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="learners = 3 want a GPU each, and gpus = 2"):
        JobSpec.parse(tiny_spec | {"resources": {"device": "cuda", "gpus": 2, "learners": 3}})
