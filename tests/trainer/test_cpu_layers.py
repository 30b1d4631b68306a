"""Our own layers for small models on a CPU against the library's: values, gradients, and what they leave to the library."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, Qwen3ForCausalLM

import trainer.attention  # registers how the library is to see packed sequences
from tests.trainer.kinds import SHAPE, models
from trainer.config import Model
from trainer.cpu.body import Body
from trainer.cpu.compile import HERE, digest, exponentials
from trainer.cpu.decoding import Drawn, SmallModel, continue_prompts
from trainer.cpu.threads import in_threads
from trainer.cpu.weights import fits
from trainer.policy import Policy
from trainer.rollout.sampler import SampleRequest, SamplingSettings
from trainer.rollout.transformers_sampler import SeededSampling, TransformersSampler, uniform_numbers
from trainer.stopping import Stopped

OURS = ("qwen3", "qwen2", "llama")
LENGTHS = [13, 11, 11, 7, 4, 1]
PROMPTS = [(3, 4, 5, 6, 7), (8,), (9, 10, 11)]
COPIES = [3, 1, 2]
GO_ON = numpy.zeros(1, numpy.int8)


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def library(model: PreTrainedModel, ids: Tensor, lengths: list[int]) -> Tensor:
    model.set_attn_implementation(trainer.attention.PACKED)
    positions = torch.cat([torch.arange(length) for length in lengths])
    body = model.base_model
    hidden: Tensor = body(ids[None], position_ids=positions[None], sequence_lengths=lengths, use_cache=False).last_hidden_state
    return hidden[0]


def gradients(model: PreTrainedModel, hidden: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    generator = torch.Generator().manual_seed(1)
    (hidden * torch.randn(hidden.shape, generator=generator, dtype=hidden.dtype)).sum().backward()  # type: ignore[no-untyped-call]
    return {
        name: parameter.grad.clone() for name, parameter in model.base_model.named_parameters() if parameter.grad is not None
    }


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize(("count", "rows"), [(1, 1000), (2, 1000), (1, 10), (3, 6)])
def test_values_and_gradients_are_the_librarys(
    name: str, count: int, rows: int, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, however many threads there are and however the sequences are cut into chunks."""
    model = models()[name].double()
    ids = torch.randint(1, 50, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    expected = library(model, ids, LENGTHS)
    of_library = gradients(model, expected)
    threads(count)
    monkeypatch.setattr("trainer.cpu.branches.ROWS", rows)
    monkeypatch.setattr("trainer.cpu.branches.ALONE", 10)
    found = Body(model)(ids, LENGTHS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    ours = gradients(model, found)
    assert ours.keys() == of_library.keys()
    for parameter, gradient in ours.items():
        torch.testing.assert_close(gradient, of_library[parameter], rtol=0, atol=1e-10, msg=parameter)
    with torch.no_grad():
        torch.testing.assert_close(Body(model)(ids, LENGTHS), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("count", [1, 2])
def test_the_same_threads_give_the_same_bits(
    count: int, threads: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = models()["qwen3"]
    threads(count)
    monkeypatch.setattr("trainer.cpu.branches.ROWS", 6)
    monkeypatch.setattr("trainer.cpu.branches.ALONE", 10)
    ids = torch.randint(1, 3, (sum(LENGTHS),), generator=torch.Generator().manual_seed(0))
    first, second = (gradients(model, Body(model)(ids, LENGTHS)) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_what_is_left_to_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = models()
    assert {name: fits(model) for name, model in kinds.items()} == {name: name in OURS for name in kinds}
    assert not fits(kinds["llama"].bfloat16())
    scaled = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    assert not fits(LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2, rope_parameters=scaled)))
    assert not fits(LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2, hidden_act="gelu")))
    monkeypatch.setattr("trainer.cpu.weights.LARGEST", 1000)
    assert not fits(kinds["qwen3"])


def test_long_sequences_are_left_to_the_library(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = Policy.load(Model(path=str(tiny_model)), torch.device("cpu"), temperature=1.0)
    called: list[int] = []
    hook = policy.model.base_model.register_forward_pre_hook(lambda *_: called.append(1))
    short = policy.token_logprobs([(5, 6, 7, 8, 9, 10)])
    assert not called
    monkeypatch.setattr("trainer.policy.LONGEST", 5)
    assert policy.token_logprobs([(5, 6, 7, 8, 9, 10)]) == [pytest.approx(short[0], abs=1e-5)]
    assert called
    hook.remove()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_exponentials(dtype: torch.dtype) -> None:
    x = torch.linspace(-80, 80, 100_001, dtype=dtype)
    found = x.clone()
    exponentials(found.numpy())
    assert ((found / x.double().exp()).sub(1).abs().max() / torch.finfo(dtype).eps).item() < 3
    odd = torch.tensor([torch.nan, -torch.inf, -1000, 0] * 16, dtype=dtype)
    exponentials(odd.numpy())
    assert odd[0::4].isnan().all()
    assert (odd[1:3] < 1e-37).all()
    assert (odd[3::4] == 1).all()


@pytest.mark.parametrize("sampling", [(1.0, 1.0), (0.7, 1.0), (0.7, 0.8), (0.0, 1.0)])
@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("at_once", [1000, 2])
@torch.no_grad()
def test_tokens_are_drawn_from_the_models_own_distribution(
    name: str, sampling: tuple[float, float], at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By plain forward passes, and the inverse transform of the same uniform numbers; prompts read in one chunk or in three."""
    monkeypatch.setattr("trainer.cpu.branches.ROWS", at_once)
    temperature, top_p = sampling
    model, ends, limit, seeds = models()[name].double().eval(), [7, 21], 9, list(range(sum(COPIES)))
    drawn = continue_prompts(
        SmallModel(model),
        PROMPTS,
        COPIES,
        uniform_numbers(seeds, limit),
        ends,
        temperature=temperature,
        top_p=top_p,
        stop=GO_ON,
    )
    assert drawn.counts_B.tolist() != [limit] * len(seeds), "some row must end early for this to show something"
    rows = [prompt for prompt, count in zip(PROMPTS, COPIES, strict=True) for _ in range(count)]
    for row, seed in enumerate(seeds):
        plain = SeededSampling([seed], SamplingSettings(limit, temperature=temperature, top_p=top_p), torch.device("cpu"))
        ids, count = list(rows[row]), int(drawn.counts_B[row])
        for step in range(count):
            logits = model(input_ids=torch.tensor([ids])).logits[:, -1]
            ids.append(int(plain.choose(logits, torch.tensor([0]), step)))
        assert drawn.tokens_BT[row, :count].tolist() == ids[len(rows[row]) :]
        torch.testing.assert_close(drawn.logprobs_BT[row, :count], plain.logprobs_BT[0, :count], rtol=0, atol=2e-6)
        assert count == limit or ids[-1] in ends
        assert not set(ids[len(rows[row]) : -1]) & set(ends)


@torch.no_grad()
def test_weights_that_are_nan_give_tokens_whose_logprobs_are_nan() -> None:
    """The learner then names the step; an index out of range would end the run without a word of why."""
    model: Qwen3ForCausalLM = models()["qwen3"].eval()
    model.model.layers[1].mlp.down_proj.weight[0, 0] = torch.nan
    drawn = continue_prompts(
        SmallModel(model), PROMPTS, COPIES, uniform_numbers(range(6), 4), [50], temperature=1.0, top_p=1.0, stop=GO_ON
    )
    assert ((drawn.tokens_BT >= 0) & (drawn.tokens_BT < 50)).all()
    assert drawn.logprobs_BT.isnan().all()


def test_a_norm_that_overflows_gives_no_gradient() -> None:
    """Its output is 0, and without this the step would be taken as if nothing had happened."""
    for name in ("embed_tokens", "k_proj"):
        model = models()["qwen3"]
        weight = model.model.embed_tokens.weight if name == "embed_tokens" else model.model.layers[1].self_attn.k_proj.weight
        with torch.no_grad():
            weight[3] = 1e30
        found = Body(model)(torch.tensor([1, 3, 5]), [3])
        assert not torch.cat([gradient.flatten() for gradient in gradients(model, found).values()]).isfinite().all(), name


@pytest.mark.parametrize("stop", [("x",), ()])
def test_long_prompts_and_stop_strings_are_left_to_the_library(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch, stop: tuple[str, ...]
) -> None:
    policy = Policy.load(Model(path=str(tiny_model)), torch.device("cpu"), temperature=1.0)
    sampler, request = TransformersSampler(policy.model, policy.tokenizer), SampleRequest((5, 6, 7), (1, 2, 3))
    ours = sampler.generate([request], SamplingSettings(6))

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("by our own layers")

    monkeypatch.setattr("trainer.rollout.transformers_sampler.continue_prompts", fail)
    with pytest.raises(AssertionError, match="by our own layers"):
        sampler.generate([request], SamplingSettings(6))
    monkeypatch.setattr("trainer.rollout.transformers_sampler.LONGEST", 1000 if stop else 2)
    (completions,) = sampler.generate([request], SamplingSettings(6, stop=stop))
    if not stop:
        assert [completion.token_ids for completion in completions] == [completion.token_ids for completion in ours[0]]


def test_work_in_threads(threads: Callable[[int], None]) -> None:
    threads(2)
    x = torch.ones(3, requires_grad=True)
    seen = in_threads([lambda: (torch.get_num_threads(), (x * 2).requires_grad)] * 2)
    assert seen == [(1, False)] * 2
    assert torch.get_num_threads() == 2
    assert torch.is_grad_enabled()

    assert in_threads([torch.get_num_threads], stop=lambda: None) == [1]
    assert in_threads([torch.get_num_threads]) == [2]

    def fail() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here"):
        in_threads([lambda: None, fail])
    assert torch.get_num_threads() == 2


def test_a_signal_ends_a_generation_at_its_next_token(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its handler runs while the threads draw, and what waits for them ends with it."""
    policy = Policy.load(Model(path=str(tiny_model)), torch.device("cpu"), temperature=1.0)
    sampler = TransformersSampler(policy.model, policy.tokenizer)
    monkeypatch.setattr(sampler, "_end_tokens", [-1])  # rows go on until the limit
    sampler.generate([SampleRequest((5, 6), (1, 2))], SamplingSettings(2))  # compiled
    drawn: list[Drawn] = []

    def remembered(*given: object, **named: object) -> Drawn:
        drawn.append(continue_prompts(*given, **named))  # type: ignore[arg-type]
        return drawn[-1]

    monkeypatch.setattr("trainer.rollout.transformers_sampler.continue_prompts", remembered)

    def handle(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        with pytest.raises(Stopped):
            sampler.generate([SampleRequest((5, 6), tuple(range(100)))], SamplingSettings(4000))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert drawn, "the threads have ended before generate has"
    assert all((part.counts_B < 4000).all() for part in drawn)


def test_a_change_of_any_source_is_compiled_anew(tmp_path: Path) -> None:
    for path in HERE.glob("*.py"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert digest(tmp_path) == digest(HERE)
    for path in sorted(tmp_path.glob("*.py")):
        before = digest(tmp_path)
        path.write_text(path.read_text() + "# changed\n")
        assert digest(tmp_path) != before
