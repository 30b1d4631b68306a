"""Rollouts by Hugging Face `generate`, in this process, with a model of its own: for machines without vLLM, and quick tests."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

import numpy
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel, PreTrainedTokenizerBase

from trainer.rollout.sampler import Finished, SampleRequest, SamplingSettings, WeightSyncError
from trainer.types import Completion

ROWS_AT_ONCE = 256  # completions of one generate call; the rest wait


class TransformersSampler:
    """Samples with the weights last pushed; on a CPU the same requests give the same tokens, bit for bit."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._end_tokens = end_token_ids(model, tokenizer)
        self._pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self._end_tokens[0]
        self._started: list[tuple[Completion, ...]] | None = None

    def start(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> None:
        """Generates before it returns: in one process, sampling and learning take turns."""
        assert self._started is None
        self._started = self.generate(requests, settings)

    def finish(self) -> list[tuple[Completion, ...]]:
        assert self._started is not None
        completions, self._started = self._started, None
        return completions

    def generate(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[tuple[Completion, ...]]:
        rows = [(request.prompt_token_ids, seed) for request in requests for seed in request.seeds]
        done: list[Completion] = []
        for start in range(0, len(rows), ROWS_AT_ONCE):
            done += self._generate_rows(rows[start : start + ROWS_AT_ONCE], settings)
        completions = iter(done)
        return [tuple(next(completions) for _ in request.seeds) for request in requests]

    def stream(self, requests: Sequence[tuple[SampleRequest, SamplingSettings]]) -> Iterator[list[Finished]]:
        """A `generate` call after another, in order; settings are shared by all rows of a call."""
        for settings, alike in groupby(enumerate(requests), key=lambda numbered: numbered[1][1]):
            rows = [(n, i, request.prompt_token_ids, seed) for n, (request, _) in alike for i, seed in enumerate(request.seeds)]
            for start in range(0, len(rows), ROWS_AT_ONCE):
                part = rows[start : start + ROWS_AT_ONCE]
                done = self._generate_rows([(prompt, seed) for _, _, prompt, seed in part], settings)
                yield [(n, i, completion) for (n, i, _, _), completion in zip(part, done, strict=True)]

    @torch.no_grad()
    def push_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:  # noqa: ARG002  # the protocol's
        own = dict(self._model.named_parameters())
        given = dict(weights)
        if own.keys() != given.keys():
            raise WeightSyncError(f"weights missing or unknown: {sorted(own.keys() ^ given.keys())[:5]}")
        for name, weight in given.items():
            own[name].copy_(weight)

    @torch.no_grad()
    def token_logprobs(self, sequences: Sequence[tuple[int, ...]]) -> list[list[float]]:
        rows = []
        for sequence in sequences:
            ids = torch.tensor([sequence], device=self._model.device)
            logprobs = self._model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
            rows.append(logprobs.gather(-1, ids[0, 1:, None]).squeeze(-1).tolist())
        return rows

    def close(self) -> None:
        """Nothing runs outside this process."""

    @torch.no_grad()
    def _generate_rows(self, rows: Sequence[tuple[tuple[int, ...], int]], settings: SamplingSettings) -> list[Completion]:
        """One left-padded `generate` call."""
        width = max(len(prompt) for prompt, _ in rows)
        ids = torch.tensor([[self._pad] * (width - len(prompt)) + list(prompt) for prompt, _ in rows])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt, _ in rows])
        chooser = SeededSampling([seed for _, seed in rows], settings)
        output = self._model.generate(
            input_ids=ids.to(self._model.device),
            attention_mask=mask.to(self._model.device),
            generation_config=GenerationConfig(
                do_sample=False,  # the processor below has already chosen
                max_new_tokens=settings.max_new_tokens,
                eos_token_id=self._end_tokens,
                pad_token_id=self._pad,
                stop_strings=list(settings.stop) or None,
            ),
            logits_processor=LogitsProcessorList([chooser]),
            tokenizer=self._tokenizer if settings.stop else None,
        )
        tokens, logprobs = output[:, width:].tolist(), chooser.logprobs()
        return [self._completion(row, row_logprobs, settings) for row, row_logprobs in zip(tokens, logprobs, strict=True)]

    def _completion(self, tokens: list[int], logprobs: list[float], settings: SamplingSettings) -> Completion:
        """What a row of `generate` holds up to its end token or stop string; the rest is padding."""
        length = next((i + 1 for i, token in enumerate(tokens) if token in self._end_tokens), len(tokens))
        finished = length > 0 and tokens[length - 1] in self._end_tokens
        if settings.stop:
            stopped = self._length_to_stop(tokens[:length], settings.stop)
            finished, length = finished or stopped is not None, stopped or length
        kept = tuple(tokens[:length])
        return Completion(
            token_ids=kept,
            text=self._tokenizer.decode(kept, skip_special_tokens=True),
            sampler_logprobs=tuple(logprobs[:length]),
            finish_reason="stop" if finished else "length",
        )

    def _length_to_stop(self, tokens: list[int], stop: tuple[str, ...]) -> int | None:
        """The number of tokens with which a stop string is complete; None where there is none."""
        for length in range(1, len(tokens) + 1):
            text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
            if any(string in text for string in stop):
                return length
        return None


class SeededSampling(LogitsProcessor):  # type: ignore[misc]
    """Chooses each row's token by inverse transform of that row's own uniform numbers and leaves only it to be taken.

    `generate` draws from one generator for all rows, so a sample there depends on its neighbours; here it does not.
    """

    def __init__(self, seeds: Sequence[int], settings: SamplingSettings) -> None:
        self._settings = settings
        self._uniform_BT = torch.from_numpy(
            numpy.stack([numpy.random.Generator(numpy.random.Philox(key=s)).random(settings.max_new_tokens) for s in seeds])
        )
        self._logprobs: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # noqa: ARG002  # the base class's
        logprobs_BV = self._distribution(scores.float())
        chosen_B1 = self._choose(logprobs_BV)
        self._logprobs.append(logprobs_BV.gather(-1, chosen_B1).squeeze(-1).cpu())
        return torch.full_like(scores, -torch.inf).scatter(-1, chosen_B1, 0.0)

    def logprobs(self) -> list[list[float]]:
        """Log-probability of each chosen token under the distribution it was drawn from, a list a row."""
        rows: list[list[float]] = torch.stack(self._logprobs, dim=1).tolist()
        return rows

    def _distribution(self, logits_BV: Tensor) -> Tensor:
        """Log-probabilities after temperature and top_p."""
        if self._settings.temperature == 0:
            return logits_BV.log_softmax(-1)
        logprobs_BV = (logits_BV / self._settings.temperature).log_softmax(-1)
        if self._settings.top_p < 1:
            ordered_BV, order_BV = logprobs_BV.sort(-1, descending=True)
            before_BV = ordered_BV.exp().cumsum(-1) - ordered_BV.exp()  # mass of the likelier tokens: the first always stays
            cut_BV = (before_BV >= self._settings.top_p).scatter(-1, order_BV, before_BV >= self._settings.top_p)
            logprobs_BV = logprobs_BV.masked_fill(cut_BV, -torch.inf).log_softmax(-1)
        return logprobs_BV

    def _choose(self, logprobs_BV: Tensor) -> Tensor:
        if self._settings.temperature == 0:
            return logprobs_BV.argmax(-1, keepdim=True)
        mass_BV = logprobs_BV.double().exp().cumsum(-1)
        uniform_B1 = self._uniform_BT[:, len(self._logprobs), None].to(mass_BV.device)
        return (mass_BV <= uniform_B1 * mass_BV[:, -1:]).sum(-1, keepdim=True)


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a completion: the model's generation settings', and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return ids if tokenizer.eos_token_id in ids else [*ids, tokenizer.eos_token_id]
