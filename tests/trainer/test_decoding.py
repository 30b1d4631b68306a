"""Decoding a token a step against plain forward passes, for kinds of attention that models differ in."""

import math

import numpy
import pytest
import torch

from tests.trainer.kinds import models
from trainer.rollout.decoding import DECODING, Decoder, ReservedLayer
from trainer.rollout.sampler import SampleRequest, SamplingSettings
from trainer.rollout.transformers_sampler import SeededSampling, in_parts

PROMPTS = [(3, 4, 5, 6, 7), (8,), (9, 10, 11)]
PAD = 0


@pytest.mark.parametrize("name", ["qwen3", "qwen2", "llama", "sliding", "biased"])
@torch.no_grad()
def test_logits_are_those_of_a_plain_forward_pass(name: str) -> None:
    """In double precision, norms included."""
    model = models()[name].double().eval()
    rows = [[*PROMPTS[i]] for i in (0, 0, 1, 2, 2)]
    plain = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
    model.set_attn_implementation(DECODING)
    decoder = Decoder(model, PAD, longest=5 + 8)
    logits = decoder.read(PROMPTS, copies=[2, 1, 2])
    for step in range(8):
        for row, own, expected in zip(rows, logits, plain, strict=True):
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-10, msg=f"step {step}, row {row}")
        tokens = [(7 * step + 5 * i) % 47 + 1 for i in range(len(rows))]
        if step == 3:  # the second and the last row have ended
            kept = [0, 2, 3]
            rows, tokens = [rows[i] for i in kept], [tokens[i] for i in kept]
            decoder.keep(torch.tensor(kept))
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        model.set_attn_implementation("sdpa")
        plain = [model(input_ids=torch.tensor([row])).logits[0, -1] for row in rows]
        model.set_attn_implementation(DECODING)
        logits = decoder.step(torch.tensor(tokens))


def test_a_new_token_copies_nothing_of_those_before() -> None:
    layer = ReservedLayer(longest=6)
    keys, _ = layer.update(torch.ones(2, 1, 3, 4), torch.ones(2, 1, 3, 4))
    again, _ = layer.update(torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4))
    assert again.data_ptr() == keys.data_ptr()
    assert again.shape == (2, 1, 4, 4)
    assert again[0, 0, :, 0].tolist() == [1, 1, 1, 0]


def test_logits_that_are_nan_give_a_token_whose_logprob_is_nan() -> None:
    """The learner then names the step; an index out of range would end the run without a word of why."""
    logits = torch.zeros(2, 5)
    logits[1] = torch.nan
    chooser = SeededSampling([1, 2], SamplingSettings(max_new_tokens=3), torch.device("cpu"))
    tokens = chooser.choose(logits, torch.arange(2), 0)
    assert ((tokens >= 0) & (tokens < 5)).all()
    assert chooser.logprobs_BT[0, 0].item() == pytest.approx(-math.log(5))
    assert chooser.logprobs_BT[1, 0].isnan()


def test_tokens_are_those_of_the_inverse_transform() -> None:
    """The number of tokens whose cumulated probability is at most the row's uniform number."""
    torch.manual_seed(0)
    logits, seeds = torch.randn(64, 11), list(range(64))
    chooser = SeededSampling(seeds, SamplingSettings(max_new_tokens=1, temperature=0.7, top_p=0.8), torch.device("cpu"))
    tokens = chooser.choose(logits, torch.arange(64), 0)
    for row, seed in enumerate(seeds):
        uniform = numpy.random.Generator(numpy.random.Philox(key=seed)).random(1)[0]
        p, order = (logits[row] / 0.7).softmax(-1).sort(descending=True)
        kept = torch.zeros(11).scatter(0, order, p * (p.cumsum(0) - p < 0.8))
        mass = kept.double().cumsum(0)
        assert tokens[row] == int((mass <= uniform * mass[-1]).sum())


def test_requests_cut_into_parts() -> None:
    requests = [SampleRequest((1,), (1, 2, 3)), SampleRequest((2,), (4,)), SampleRequest((3,), tuple(range(5, 12)))]
    parts = [[(r.prompt_token_ids[0], r.seeds) for r in part] for part in in_parts(requests, 5)]
    assert parts == [[(1, (1, 2, 3)), (2, (4,)), (3, (5,))], [(3, (6, 7, 8, 9, 10))], [(3, (11,))]]
