"""Sequences packed into one row: no sequence sees another, and the head's written-out gradient is the true one."""

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

from trainer.attention import packed_attention
from trainer.batch import TrainSequence, collate
from trainer.config import Model
from trainer.head import head_logprobs
from trainer.policy import Policy, load_tokenizer
from trainer.strict import SpecError

CPU = torch.device("cpu")


@pytest.fixture(params=["kernels", "library"])
def policy(tiny_model: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Policy:
    """By our own layers, and by the library's, which is how larger models and GPUs compute."""
    if request.param == "library":
        monkeypatch.setattr("trainer.policy.fits", lambda _: False)
    return Policy.load(Model(path=str(tiny_model)), CPU, temperature=0.9)


def sequence(*completion: int) -> TrainSequence:
    return TrainSequence((3, 4), completion, (0.0,) * len(completion), 1.0)


def test_the_example_of_the_docstring() -> None:
    batch = collate([TrainSequence((5, 6), (7,), (0.0,), 0.0), TrainSequence((8,), (1, 2, 3), (0.0,) * 3, 0.0)], CPU)
    assert batch.token_ids_N.tolist() == [5, 6, 7, 8, 1, 2, 3]
    assert batch.positions_N.tolist() == [0, 1, 2, 0, 1, 2, 3]
    assert batch.lengths == [3, 4]
    assert batch.trained_M.tolist() == [1, 3, 4, 5]
    assert batch.targets_M.tolist() == [7, 1, 2, 3]
    assert batch.mask_BT.tolist() == [[True, False, False], [True, True, True]]


def test_a_packed_sequence_cannot_see_its_neighbours(policy: Policy) -> None:
    """Neither in value, whatever the neighbours are, nor in gradient."""
    middle = sequence(10, 11, 12, 13)
    one = policy.distribution(collate([sequence(20, 21), middle, sequence(30)], CPU)).logprobs_BT[1]
    other = policy.distribution(collate([sequence(50, 51), middle, sequence(60)], CPU)).logprobs_BT[1]
    assert torch.equal(one, other)
    # With another number of tokens in all, some CPUs add up a product in another order.
    longer = policy.distribution(collate([sequence(50, 51, 52, 53, 54), middle, sequence(60, 61)], CPU)).logprobs_BT[1, :4]
    torch.testing.assert_close(one, longer, rtol=0, atol=2e-6)
    embeddings = policy.model.get_input_embeddings()
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    hook = embeddings.register_forward_hook(lambda _module, inputs, output: seen.append((inputs[0].flatten(), output)))
    first, last = TrainSequence((5, 6), (20, 21), (0.0,) * 2, 1.0), TrainSequence((7, 8), (30,), (0.0,), 1.0)
    logprobs = policy.distribution(collate([first, middle, last], CPU)).logprobs_BT[1]
    hook.remove()
    ((token_ids, embedded),) = seen
    (gradient,) = torch.autograd.grad(logprobs.sum(), embedded)
    touched = gradient.view(len(token_ids), -1).abs().sum(-1) > 0
    assert sorted(token_ids[touched].tolist()) == [3, 4, 10, 11, 12]
    assert sorted(token_ids[~touched].tolist()) == [5, 6, 7, 8, 13, 20, 21, 30]  # a sequence's last token predicts nothing


def attended(dtype: torch.dtype, device: str, lengths: list[int]) -> list[torch.Tensor]:
    """What attention gives for four heads of queries and two of keys, and its gradients."""
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, heads, sum(lengths), 32) for heads in (4, 2, 2)]
    query, key, value = (torch.randn(shape, generator=generator).to(device, dtype).requires_grad_() for shape in shapes)
    output, _ = packed_attention(torch.nn.Module(), query, key, value, None, sequence_lengths=lengths, scaling=0.2)
    (output * torch.randn(output.shape, generator=generator).to(device, dtype)).sum().backward()  # type: ignore[no-untyped-call]
    return [output.detach(), *(tensor.grad for tensor in (query, key, value) if tensor.grad is not None)]


def test_flash_attention_is_called_as_it_wants_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: on tensors without numbers, by the shapes that PyTorch itself tells of the kernel and its gradient."""
    plain = [tensor.shape for tensor in attended(torch.float32, "cpu", [5, 7])]
    monkeypatch.setattr("trainer.attention.has_flash_attention", lambda *_: True)
    assert [tensor.shape for tensor in attended(torch.bfloat16, "meta", [5, 7])] == plain


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_flash_attention_gives_what_a_call_a_sequence_gives() -> None:
    for flash, plain in zip(
        attended(torch.bfloat16, "cuda", [5, 700, 1]), attended(torch.float32, "cpu", [5, 700, 1]), strict=True
    ):
        torch.testing.assert_close(flash.float().cpu(), plain, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("at_once", [7 * 3, 10**6])
@pytest.mark.parametrize("kept", [0, 10**6])
@pytest.mark.parametrize("in_kernels", [True, False])
def test_head_gradients_equal_autograds(monkeypatch: pytest.MonkeyPatch, at_once: int, kept: int, in_kernels: bool) -> None:
    monkeypatch.setattr("trainer.head.in_kernels", lambda _: in_kernels)
    monkeypatch.setattr("trainer.head.LOGITS_AT_ONCE", at_once)
    monkeypatch.setattr("trainer.head.LOGITS_KEPT", kept)
    torch.manual_seed(0)
    hidden = torch.randn(11, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(7, 5, dtype=torch.float64, requires_grad=True)
    tokens = torch.randint(0, 7, (11,))
    a, b = torch.randn(2, 11, dtype=torch.float64)

    all_logprobs = (hidden @ weight.T / 0.7).log_softmax(-1)
    expected = all_logprobs.gather(-1, tokens[:, None]).squeeze(-1), -(all_logprobs.exp() * all_logprobs).sum(-1)
    true_gradients = torch.autograd.grad((a * expected[0] + b * expected[1]).sum(), (hidden, weight))

    found = head_logprobs(hidden, weight, tokens, 0.7)
    gradients = torch.autograd.grad((a * found[0] + b * found[1]).sum(), (hidden, weight))
    for ours, theirs in zip((*found, *gradients), (*expected, *true_gradients), strict=True):
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)


def test_a_token_that_the_head_does_not_know_is_refused() -> None:
    with pytest.raises(IndexError, match="from 2 to 7, and a head of 7"):
        head_logprobs(torch.ones(2, 5), torch.ones(7, 5), torch.tensor([2, 7]), 1.0)


def test_a_model_that_caps_its_logits_is_refused(tiny_model: Path) -> None:
    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=128, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        head_dim=16, final_logit_softcapping=0.5,
    )  # fmt: skip
    with pytest.raises(SpecError, match="capped or scaled"):
        Policy(Gemma2ForCausalLM(config).eval(), load_tokenizer(Model(path=str(tiny_model))), temperature=1.0)
