"""The two samplers behind one protocol, on a real tiny model: seeds, log-probabilities, weight pushes and their proof."""

import math
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch

from trainer.config import Model, Resources
from trainer.policy import Policy
from trainer.rollout.open import open_sampler
from trainer.rollout.probe import WeightProbe
from trainer.rollout.sampler import Sampler, SampleRequest, SamplingSettings, WeightSyncError, sample_seed
from trainer.rollout.vllm_sampler import EngineError, VllmSampler

CPU = torch.device("cpu")
PROMPTS = [(3, 4, 5), (6,), (7, 8, 9, 10, 11)]


@pytest.fixture(scope="module")
def policy(tiny_model: Path) -> Policy:
    return Policy.load(Model(path=str(tiny_model)), CPU, temperature=1.0)


@pytest.fixture(scope="module", params=["transformers", pytest.param("vllm", marks=pytest.mark.slow)])
def sampler(request: pytest.FixtureRequest, tiny_model: Path, policy: Policy) -> Iterator[Sampler]:
    opened = open_sampler(
        request.param,
        Model(path=str(tiny_model)),
        policy.tokenizer,
        max_model_len=64,
        concurrency=64,
        device=CPU,
        resources=Resources(kv_cache_mb=64),
    )
    yield opened
    opened.close()


def requests(samples: int) -> list[SampleRequest]:
    return [SampleRequest(p, tuple(sample_seed(0, 1, i, s) for s in range(samples))) for i, p in enumerate(PROMPTS)]


def test_same_seeds_same_completions_whatever_their_neighbours(sampler: Sampler) -> None:
    settings = SamplingSettings(max_new_tokens=10)
    together = sampler.generate(requests(4), settings)
    assert [len(group) for group in together] == [4, 4, 4]
    assert len({c.token_ids for group in together for c in group}) == 12
    assert sampler.generate(requests(4), settings) == together
    alone = sampler.generate([SampleRequest(PROMPTS[1], requests(4)[1].seeds[2:3])], settings)
    assert alone[0][0].token_ids == together[1][2].token_ids


@pytest.mark.parametrize(
    "settings", [SamplingSettings(12), SamplingSettings(12, temperature=0.7), SamplingSettings(12, temperature=0)]
)
def test_logged_logprobs_are_those_of_the_learner(sampler: Sampler, policy: Policy, settings: SamplingSettings) -> None:
    sampler.push_weights(policy.weights(), 0)
    for prompt, group in zip(PROMPTS, sampler.generate(requests(2), settings), strict=True):
        for completion in group:
            ids = torch.tensor([prompt + completion.token_ids])
            logits = policy.model(input_ids=ids).logits[0, len(prompt) - 1 : -1].double()
            all_logprobs = (logits / (settings.temperature or 1.0)).log_softmax(-1)
            if settings.temperature == 0:
                assert completion.token_ids == tuple(logits.argmax(-1).tolist())
                continue
            expected = all_logprobs.gather(-1, torch.tensor(completion.token_ids)[:, None]).squeeze(-1)
            assert completion.sampler_logprobs == pytest.approx(expected.tolist(), abs=1e-4)


def test_finish_reasons(sampler: Sampler, policy: Policy) -> None:
    completions = [c for group in sampler.generate(requests(16), SamplingSettings(40)) for c in group]
    ended = [c for c in completions if c.finish_reason == "stop"]
    assert ended
    assert all((c.token_ids[-1] == policy.tokenizer.eos_token_id) == (c.finish_reason == "stop") for c in completions)
    assert all(len(c.token_ids) == 40 for c in completions if c.finish_reason == "length")
    assert all(len(c.token_ids) == len(c.sampler_logprobs) for c in completions)
    assert all("<eos>" not in c.text for c in completions)


def test_stop_strings_end_a_completion(sampler: Sampler) -> None:
    completions = [c for g in sampler.generate(requests(16), SamplingSettings(40, stop=("A", "7"))) for c in g]
    stopped = [c for c in completions if c.text and c.text[-1] in "A7"]
    assert stopped
    assert all(c.finish_reason == "stop" for c in stopped)
    assert all("A" not in c.text[:-1] and "7" not in c.text[:-1] for c in completions)


def test_top_p_keeps_the_likeliest_tokens_only(sampler: Sampler, policy: Policy) -> None:
    sampler.push_weights(policy.weights(), 0)
    logits = policy.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1]
    probabilities, order = logits.softmax(-1).sort(descending=True)
    kept = set(order[: int((probabilities.cumsum(-1) < 0.3).sum()) + 1].tolist())
    request = SampleRequest(PROMPTS[0], tuple(sample_seed(1, 0, 0, i) for i in range(200)))
    drawn = Counter(c.token_ids[0] for c in sampler.generate([request], SamplingSettings(1, top_p=0.3))[0])
    assert set(drawn) <= kept
    assert len(drawn) > 0.5 * len(kept)


def test_samples_follow_the_distribution(sampler: Sampler, policy: Policy) -> None:
    """Chi-square over the first token, classes of at least 5 expected draws; the seeds are fixed."""
    sampler.push_weights(policy.weights(), 0)
    draws = 2000
    probabilities = policy.model(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].softmax(-1).tolist()
    request = SampleRequest(PROMPTS[0], tuple(sample_seed(2, 0, 0, i) for i in range(draws)))
    drawn = Counter(c.token_ids[0] for c in sampler.generate([request], SamplingSettings(1))[0])
    classes = [(drawn[token], p * draws) for token, p in enumerate(probabilities) if p * draws >= 5]
    chi2 = sum((seen - expected) ** 2 / expected for seen, expected in classes)
    degrees = len(classes) - 1
    assert degrees > 20
    assert chi2 < degrees + 5 * math.sqrt(2 * degrees)


def test_after_a_push_the_engine_has_the_learners_weights(sampler: Sampler, policy: Policy, tiny_model: Path) -> None:
    """Tied embeddings included: the head is the embedding. And a probe notices each kind of weight that was not pushed."""
    assert policy.model.config.tie_word_embeddings
    probe = WeightProbe(policy, "float32")
    changed = Policy.load(Model(path=str(tiny_model)), CPU, temperature=1.0)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    sampler.push_weights(policy.weights(), 1)
    sampler.generate(requests(2), SamplingSettings(4))  # fills the prefix cache with the old weights
    sampler.push_weights(changed.weights(), 2)
    assert WeightProbe(changed, "float32").check(sampler) < 1e-4
    with pytest.raises(WeightSyncError, match="differ from the learner's by"):
        probe.check(sampler)
    stale = dict(policy.weights())
    for name in (
        "model.embed_tokens.weight",
        "model.layers.2.self_attn.k_proj.weight",
        "model.layers.0.mlp.down_proj.weight",
        "model.norm.weight",
    ):
        sampler.push_weights((stale | {name: dict(changed.weights())[name]}).items(), 3)
        with pytest.raises(WeightSyncError):
            probe.check(sampler)
    sampler.push_weights(policy.weights(), 4)
    assert probe.check(sampler) < 1e-4


def test_a_missing_weight_is_an_error(sampler: Sampler, policy: Policy) -> None:
    partial = {name: weight for name, weight in policy.weights() if name != "model.norm.weight"}
    with pytest.raises(WeightSyncError, match=r"norm\.weight"):
        sampler.push_weights(partial.items(), 9)
    sampler.push_weights(policy.weights(), 10)
    WeightProbe(policy, "float32").check(sampler)


def engines() -> list[psutil.Process]:
    """The engine processes that this one has started."""
    return [p for p in psutil.Process().children() if "trainer.rollout.vllm_child" in p.cmdline()]


def own_engine(tiny_model: Path, policy: Policy, resources: Resources) -> tuple[VllmSampler, psutil.Process]:
    """A sampler of the test's own, and its engine process."""
    others = set(engines())
    model = Model(path=str(tiny_model))
    sampler = VllmSampler(model, policy.tokenizer, max_model_len=64, concurrency=8, device=CPU, resources=resources)
    (engine,) = set(engines()) - others
    return sampler, engine


@pytest.mark.slow
def test_a_dead_engine_is_noticed_at_once_and_leaves_nothing(tiny_model: Path, policy: Policy) -> None:
    sampler, engine = own_engine(tiny_model, policy, Resources(kv_cache_mb=64))
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="died"):
        sampler.generate(requests(1), SamplingSettings(4))
    sampler.close()
    assert not engine.is_running()


@pytest.mark.slow
def test_an_engine_that_hangs_is_noticed_and_ended(tiny_model: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler, engine = own_engine(tiny_model, policy, Resources(kv_cache_mb=64))
    monkeypatch.setattr(sampler, "_timeout", 2.0)  # the start needed longer
    monkeypatch.setattr("trainer.rollout.vllm_sampler.CLOSE_SECONDS", 1)
    engine.suspend()
    with pytest.raises(WeightSyncError, match="hangs in 'push_weights': nothing heard of it for 2 s"):
        sampler.push_weights(policy.weights(), 1)
    sampler.close()
    assert not engine.is_running()


@pytest.mark.slow
def test_an_engine_that_has_rested_wakes_for_whatever_it_is_asked(tiny_model: Path, policy: Policy) -> None:
    """On a CPU it sleeps and wakes as on a GPU, but for the memory, which it keeps."""
    sampler, _ = own_engine(tiny_model, policy, Resources(kv_cache_mb=64))
    settings, others = SamplingSettings(8), {name: weight + 0.1 for name, weight in policy.weights()}
    by_others, expected = [], []
    for rests in (False, True):
        sampler.push_weights(others.items(), 1)
        by_others.append(sampler.generate(requests(2), settings))
        if rests:
            sampler.rest()
            sampler.rest()
        sampler.push_weights(policy.weights(), 2)
        if rests:
            sampler.rest()
        logprobs = sampler.token_logprobs(PROMPTS[2:])
        if rests:
            sampler.rest()
        expected.append((logprobs, sampler.generate(requests(2), settings)))
    sampler.close()
    assert by_others[0] == by_others[1]
    assert expected[0] == expected[1]
    assert expected[0][1] != by_others[0]


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_an_engine_that_rests_gives_the_gpus_memory_back(tiny_model: Path, policy: Policy) -> None:
    gpu = torch.device("cuda")
    resources = Resources(engine_memory_fraction=0.3, engine_sleeps=True)
    model = Model(path=str(tiny_model))
    sampler = VllmSampler(model, policy.tokenizer, max_model_len=64, concurrency=8, device=gpu, resources=resources)
    first, (awake, total) = sampler.generate(requests(2), SamplingSettings(8)), torch.cuda.mem_get_info()
    sampler.rest()
    asleep, _ = torch.cuda.mem_get_info()
    assert asleep - awake > 0.2 * total
    sampler.push_weights(policy.weights(), 1)
    assert sampler.generate(requests(2), SamplingSettings(8)) == first
    assert torch.cuda.mem_get_info()[0] < asleep - 0.2 * total
    sampler.close()


@pytest.mark.slow
def test_an_engine_that_works_longer_than_the_silence_allowed_is_waited_for(
    tiny_model: Path, policy: Policy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.rollout.vllm_sampler.PULSE_SECONDS", 0.0)
    sampler, _ = own_engine(tiny_model, policy, Resources(kv_cache_mb=64))
    sampler.start(requests(8), SamplingSettings(40))
    heard: list[tuple[str, object]] = []
    while not heard or heard[-1][0] == "working":
        heard.append(sampler._receive("generate"))
    assert len(heard) > 30  # a sign of life at each of the 40 tokens' steps
    assert heard[-1][0] == "ok"
    sampler.close()


def test_asking_for_vllm_where_it_is_missing_is_an_error(
    policy: Policy, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.rollout.vllm_sampler.find_spec", lambda _: None)
    with pytest.raises(EngineError, match="vLLM is not installed"):
        open_sampler(
            "vllm",
            Model(path=str(tiny_model)),
            policy.tokenizer,
            max_model_len=64,
            concurrency=8,
            device=CPU,
            resources=Resources(),
        )


def test_seeds_differ_in_every_coordinate() -> None:
    seeds = {sample_seed(a, b, c, d) for a in range(4) for b in range(4) for c in range(4) for d in range(4)}
    assert len(seeds) == 256
    assert all(0 <= seed < 2**63 for seed in seeds)
