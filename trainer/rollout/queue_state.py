"""Sampled batches as what `torch.save` can hold without pickled classes: numbers in flat tensors, one of each kind a batch."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from trainer.rollout.queue import Order, SampledBatch
from trainer.types import Completion, Problem


def pack(batch: SampledBatch) -> dict[str, Any]:
    """Everything in the batch; floats keep every bit."""
    flat = [completion for group in batch.completions for completion in group]
    order = batch.order
    return {
        "step": order.step,
        "sampled_at": order.sampled_at,
        "version": order.version,
        "problems": [asdict(problem) for problem in order.problems],
        "group_sizes": [len(group) for group in batch.completions],
        "texts": [completion.text for completion in flat],
        "finish_reasons": [completion.finish_reason for completion in flat],
        "lengths": [len(completion.token_ids) for completion in flat],
        "token_ids": torch.tensor([token for completion in flat for token in completion.token_ids], dtype=torch.int64),
        "sampler_logprobs": _floats([completion.sampler_logprobs for completion in flat]),
        "old_logprobs": _floats([c.old_logprobs for c in flat if c.old_logprobs is not None]),
    }


def unpack(state: dict[str, Any]) -> SampledBatch:
    """The batch that `pack` was given."""
    lengths = state["lengths"]
    tokens = _rows(state["token_ids"], lengths)
    sampler = _rows(state["sampler_logprobs"], lengths)
    old = _rows(state["old_logprobs"], lengths) if len(state["old_logprobs"]) else iter([None] * len(lengths))
    rows = zip(tokens, state["texts"], sampler, state["finish_reasons"], old, strict=True)
    flat = (Completion(*row) for row in rows)
    completions = tuple(tuple(next(flat) for _ in range(size)) for size in state["group_sizes"])
    problems = tuple(Problem(**problem) for problem in state["problems"])
    return SampledBatch(Order(state["step"], state["sampled_at"], state["version"], problems), completions)


def _floats(rows: Sequence[tuple[float, ...]]) -> torch.Tensor:
    return torch.tensor([value for row in rows for value in row], dtype=torch.float64)


def _rows(flat: torch.Tensor, lengths: Sequence[int]) -> Iterator[tuple[Any, ...]]:
    return (tuple(row.tolist()) for row in torch.split(flat, list(lengths)))
