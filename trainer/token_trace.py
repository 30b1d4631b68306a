"""What a step's updates saw at each token of its first completions, kept with the samples for people to read."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.batch import TrainSequence
from trainer.learner import TokenRecord
from trainer.types import Completion, RolloutGroup

# Which completion a sequence is: where two are equal in all of it, so is what is seen of them.
_Key = tuple[tuple[int, ...], tuple[int, ...], tuple[float, ...]]
_TELEMETRY = ("multiplier", "survival")  # of the loss; survival is MHPO's
_REPLACEMENT = "\ufffd"  # what a tokenizer gives for a part of a character


@dataclass(frozen=True, slots=True)
class Traced:
    """The first tokens of one completion; each list of `values` has one number a token.

    >>> Traced((5, 9), {"log_ratio": [0.0, 0.012], "sampler_difference": [0.001, -0.002], "multiplier": [1.0, 1.01]})
    """

    token_ids: tuple[int, ...]
    values: Mapping[str, list[float]]


class TokenTrace:
    """Up to `budget` tokens of a step, those of the first groups. Of a completion trained on twice the last update counts."""

    def __init__(self, groups: Sequence[RolloutGroup], budget: int) -> None:
        self._kept: dict[_Key, int] = {}  # how many of its first tokens
        self._traced: dict[_Key, Traced] = {}
        for group in groups:
            for completion in group.completions:
                if budget <= 0:
                    return
                kept = min(budget, len(completion.token_ids))
                self._kept[_key(group.prompt_token_ids, completion)] = kept
                budget -= kept

    def add(self, sequences: Sequence[TrainSequence], record: TokenRecord) -> None:
        """Takes in what one update on `sequences` has recorded."""
        columns = {
            "log_ratio": _less(record.logprobs, record.old_logprobs),
            "sampler_difference": _less(record.old_logprobs, record.sampler_logprobs),
            **{name: record.telemetry[name] for name in _TELEMETRY if name in record.telemetry},
        }
        for number, piece in enumerate(record.pieces):
            lengths = [len(sequences[i].completion_token_ids) for i in piece]
            rows = {name: torch.split(parts[number], lengths) for name, parts in columns.items()}
            for place, i in enumerate(piece):
                sequence = sequences[i]
                key = (sequence.prompt_token_ids, sequence.completion_token_ids, sequence.sampler_logprobs)
                if (kept := self._kept.get(key)) is not None:
                    values = {name: _short(row[place][:kept]) for name, row in rows.items()}
                    self._traced[key] = Traced(sequence.completion_token_ids[:kept], values)

    def of(self, group: RolloutGroup, completion: Completion) -> Traced | None:
        """None where the budget did not reach it, or it was not trained on."""
        return self._traced.get(_key(group.prompt_token_ids, completion))


def pieces(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> list[str]:
    """The text of each token. A character made of several tokens is that of the last of them; the others are empty."""
    return list(_pieces(token_ids, decode))


def _pieces(token_ids: Sequence[int], decode: Callable[[list[int]], str]) -> Iterator[str]:
    waiting: list[int] = []
    for number, token in enumerate(token_ids, start=1):
        waiting.append(token)
        text = decode(waiting)
        if text.endswith(_REPLACEMENT) and len(waiting) < 4 and number < len(token_ids):  # UTF-8 has at most 4 bytes
            yield ""
        else:
            waiting = []
            yield text


def _key(prompt_token_ids: tuple[int, ...], completion: Completion) -> _Key:
    return prompt_token_ids, completion.token_ids, completion.sampler_logprobs


def _less(first: Sequence[Tensor], second: Sequence[Tensor]) -> list[Tensor]:
    return [one - other for one, other in zip(first, second, strict=True)]


def _short(values: Tensor) -> list[float]:
    """In four digits: a colour needs no more, and the file stays small."""
    return [float(f"{value:.4g}") for value in values.tolist()]
