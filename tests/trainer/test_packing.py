"""Sequences packed into one row: no sequence sees another, and the head's written-out gradient is the true one."""

from pathlib import Path

import pytest
import torch
from transformers import Gemma2Config, Gemma2ForCausalLM

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
    seen: list[torch.Tensor] = []
    hook = embeddings.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    logprobs = policy.distribution(collate([sequence(20, 21), middle, sequence(30)], CPU)).logprobs_BT[1]
    hook.remove()
    (gradient,) = torch.autograd.grad(logprobs.sum(), seen)
    touched = gradient.view(13, -1).abs().sum(-1) > 0
    assert touched.tolist() == [False] * 4 + [True] * 5 + [False] * 4  # the last token of a sequence predicts nothing


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
