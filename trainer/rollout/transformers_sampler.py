"""Rollouts by a transformers model of its own in this process: for machines without vLLM, and quick tests."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from math import ceil

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, StopStringCriteria

from trainer.cpu.body import LONGEST
from trainer.cpu.decoding import Drawn, SmallModel, continue_prompts
from trainer.cpu.threads import in_threads
from trainer.cpu.weights import fits
from trainer.rollout.decoding import DECODING, Decoder
from trainer.rollout.sampler import Finished, SampleRequest, SamplingSettings, WeightSyncError
from trainer.types import Completion

ROWS_AT_ONCE = 256  # completions in flight together; the rest wait
KEEP_BELOW = 7 / 8  # a batch is cut down to the rows that go on when they are at most so much of it


class TransformersSampler:
    """Samples with the weights last pushed; on a CPU the same requests give the same tokens, bit for bit."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        model.set_attn_implementation(DECODING)
        self._model = model
        self._fits = fits(model)
        self._tokenizer = tokenizer
        self._end_tokens = end_token_ids(model, tokenizer)
        self._end_tokens_E = torch.tensor(self._end_tokens, device=model.device)
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
        done = iter([one for part in in_parts(requests, ROWS_AT_ONCE) for one in self._generate_part(part, settings)])
        return [tuple(next(done) for _ in request.seeds) for request in requests]

    def stream(self, requests: Sequence[tuple[SampleRequest, SamplingSettings]]) -> Iterator[list[Finished]]:
        """A part after another, in order; settings are shared by all rows of a part."""
        for settings, alike in groupby(enumerate(requests), key=lambda numbered: numbered[1][1]):
            numbered = [(number, request) for number, (request, _) in alike]
            places = ((number, i) for number, request in numbered for i in range(len(request.seeds)))
            for part in in_parts([request for _, request in numbered], ROWS_AT_ONCE):
                yield [(*next(places), completion) for completion in self._generate_part(part, settings)]

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
        rows: list[list[float]] = []
        for _, alike in groupby(sequences, key=len):
            ids = torch.tensor(list(alike), device=self._model.device)
            logprobs = self._model(input_ids=ids, use_cache=False).logits[:, :-1].float().log_softmax(-1)
            rows.extend(logprobs.gather(-1, ids[:, 1:, None]).squeeze(-1).tolist())
        return rows

    def rest(self) -> None:
        """Nothing to give back: between generations it has its weights alone."""

    def close(self) -> None:
        """Nothing runs outside this process."""

    def _generate_part(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> list[Completion]:
        """All completions of the requests at once; a small model's in as many threads as torch has, each its share of them."""
        longest = max(len(request.prompt_token_ids) for request in requests)
        if self._fits and not settings.stop and longest <= LONGEST:  # the library alone looks for stop strings
            stop = numpy.zeros(1, numpy.int8)
            model = SmallModel(self._model)
            rows = sum(len(request.seeds) for request in requests)
            shares = in_parts(requests, ceil(rows / torch.get_num_threads()))
            tasks = [partial(self._draw_small, share, settings, model, stop) for share in shares]
            drawn = in_threads(tasks, stop=lambda: stop.fill(1))
        else:
            drawn = in_threads([partial(self._draw, requests, settings)])
        return [
            self._completion(tokens[:count], logprobs[:count], settings)
            for part in drawn
            for tokens, logprobs, count in zip(
                part.tokens_BT.tolist(), part.logprobs_BT.tolist(), part.counts_B.tolist(), strict=True
            )
        ]

    def _draw_small(
        self, requests: Sequence[SampleRequest], settings: SamplingSettings, model: SmallModel, stop: numpy.ndarray
    ) -> Drawn:
        return continue_prompts(
            model,
            [request.prompt_token_ids for request in requests],
            [len(request.seeds) for request in requests],
            uniform_numbers([seed for request in requests for seed in request.seeds], settings.max_new_tokens),
            self._end_tokens,
            temperature=settings.temperature,
            top_p=settings.top_p,
            stop=stop,
        )

    def _draw(self, requests: Sequence[SampleRequest], settings: SamplingSettings) -> Drawn:
        """Rows that have ended leave when they are an eighth of all."""
        chooser = SeededSampling([seed for request in requests for seed in request.seeds], settings, self._model.device)
        longest = max(len(request.prompt_token_ids) for request in requests) + settings.max_new_tokens
        decoder = Decoder(self._model, self._pad, longest)
        logits = decoder.read([request.prompt_token_ids for request in requests], [len(r.seeds) for r in requests])
        rows = torch.arange(len(logits), device=logits.device)
        ended = torch.zeros_like(rows, dtype=torch.bool)
        lengths = torch.zeros_like(rows)  # tokens up to the end; of all rows, those that have left included
        for step in range(settings.max_new_tokens):
            tokens = chooser.choose(logits, rows, step)
            lengths[rows] += ~ended
            ended |= torch.isin(tokens, self._end_tokens_E)
            if settings.stop:
                ended |= self._stopped(chooser.tokens_BT[rows, : step + 1], settings.stop)
            going = int(len(rows) - ended.sum())
            if going == 0 or step + 1 == settings.max_new_tokens:
                break
            if going <= KEEP_BELOW * len(rows):
                left = (~ended).nonzero().squeeze(-1)
                rows, tokens, ended = rows[left], tokens[left], ended[left]
                decoder.keep(left)
            logits = decoder.step(tokens)
        return Drawn(chooser.tokens_BT, chooser.logprobs_BT, lengths)

    def _stopped(self, tokens_BT: Tensor, stop: tuple[str, ...]) -> Tensor:
        """Which rows [B] have just completed a stop string."""
        found: Tensor = StopStringCriteria(self._tokenizer, list(stop))(tokens_BT, None)
        return found

    def _completion(self, tokens: list[int], logprobs: list[float], settings: SamplingSettings) -> Completion:
        """Of tokens up to an end token, a stop string or the limit."""
        stop = self._length_to_stop(tokens, settings.stop) if settings.stop else None
        kept = tuple(tokens[:stop])
        ended = stop is not None or len(tokens) < settings.max_new_tokens or tokens[-1] in self._end_tokens
        return Completion(
            token_ids=kept,
            text=self._tokenizer.decode(kept, skip_special_tokens=True),
            sampler_logprobs=tuple(logprobs[: len(kept)]),
            finish_reason="stop" if ended else "length",
        )

    def _length_to_stop(self, tokens: list[int], stop: tuple[str, ...]) -> int | None:
        """The number of tokens with which a stop string is complete; None where there is none."""
        for length in range(1, len(tokens) + 1):
            text = self._tokenizer.decode(tokens[:length], skip_special_tokens=True)
            if any(string in text for string in stop):
                return length
        return None


class SeededSampling:
    """Chooses each row's tokens by inverse transform of that row's own uniform numbers, so that no row depends on another.

    `tokens_BT` and `logprobs_BT` hold what was chosen and its log-probability, nats, under the distribution it was drawn from.
    """

    def __init__(self, seeds: Sequence[int], settings: SamplingSettings, device: torch.device) -> None:
        self._settings = settings
        shape = (len(seeds), settings.max_new_tokens)
        self._uniform_BT = uniform_numbers(seeds, settings.max_new_tokens).to(device)
        self.tokens_BT = torch.zeros(shape, dtype=torch.long, device=device)
        self.logprobs_BT = torch.zeros(shape, dtype=torch.float32, device=device)

    def choose(self, logits_RV: Tensor, rows_R: Tensor, step: int) -> Tensor:
        """The token of `step` for each row [R], by the logits behind it."""
        logprobs_RV = self._distribution(logits_RV.float())
        chosen_R1 = self._choose(logprobs_RV, self._uniform_BT[rows_R, step, None])
        self.tokens_BT[rows_R, step] = chosen_R1.squeeze(-1)
        self.logprobs_BT[rows_R, step] = logprobs_RV.gather(-1, chosen_R1).squeeze(-1)
        return chosen_R1.squeeze(-1)

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

    def _choose(self, logprobs_BV: Tensor, uniform_B1: Tensor) -> Tensor:
        if self._settings.temperature == 0:
            return logprobs_BV.argmax(-1, keepdim=True)
        mass_BV = logprobs_BV.double().exp().cumsum(-1)
        # Bounded: logits that are NaN must give some token, so that the learner can name the step.
        return torch.searchsorted(mass_BV, uniform_B1 * mass_BV[:, -1:], right=True).clamp_(max=mass_BV.shape[-1] - 1)


def uniform_numbers(seeds: Sequence[int], count: int) -> Tensor:
    """[B, count], float64: each row of its own seed alone."""
    return torch.from_numpy(numpy.stack([numpy.random.Generator(numpy.random.Philox(key=s)).random(count) for s in seeds]))


def in_parts(requests: Sequence[SampleRequest], size: int) -> Iterator[list[SampleRequest]]:
    """The requests in order, cut into parts of `size` completions; one of more completions than are left is cut itself."""
    part: list[SampleRequest] = []
    left = size
    for request in requests:
        start = 0
        while start < len(request.seeds):
            seeds = request.seeds[start : start + left]
            part.append(SampleRequest(request.prompt_token_ids, seeds))
            start, left = start + len(seeds), left - len(seeds)
            if left == 0:
                yield part
                part, left = [], size
    if part:
        yield part


def end_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The tokens that end a completion: the model's generation settings', and the tokenizer's."""
    configured = model.generation_config.eos_token_id if model.generation_config is not None else None
    ids = [configured] if isinstance(configured, int) else list(configured or [])
    return ids if tokenizer.eos_token_id in ids else [*ids, tokenizer.eos_token_id]
