"""Log-probabilities and entropies of tokens from hidden states, without ever holding all logits.

Axes: N token, D hidden, V vocabulary. The backward pass is written out: with p = softmax(logits / temperature),

    d logprob / d logit = (onehot - p) / temperature        d entropy / d logit = -p (log p + entropy) / temperature

so that only log p is needed, and where it is large not even that: it is made again in the backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**23  # elements made at a time: 32 MiB in float32
LOGITS_KEPT = 2**26  # elements of log p kept for the backward pass at most: 256 MiB in float32


def head_logprobs(hidden_ND: Tensor, weight_VD: Tensor, token_ids_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log-probability of each token, entropy of the distribution there), nats, at `temperature`; both differentiable.

    In float32, or float64 where the hidden states are.
    """
    logprobs_N, entropy_N = _HeadLogprobs.apply(hidden_ND, weight_VD, token_ids_N, temperature)  # type: ignore[no-untyped-call]
    return logprobs_N, entropy_N


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, token_ids_N: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        precision = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=precision)
        entropy_N = torch.empty_like(logprobs_N)
        keep = any(ctx.needs_input_grad) and len(hidden_ND) * len(weight_VD) <= LOGITS_KEPT
        kept = []
        for rows in chunks(len(hidden_ND), len(weight_VD)):
            all_logprobs = all_logprobs_of(hidden_ND[rows], weight_VD, temperature)
            logprobs_N[rows] = all_logprobs.gather(-1, token_ids_N[rows, None]).squeeze(-1)
            p = all_logprobs.exp()
            entropy_N[rows] = -torch.linalg.vecdot(p, all_logprobs)
            if keep:
                kept.append(all_logprobs)
        ctx.save_for_backward(hidden_ND, weight_VD, token_ids_N, entropy_N, *kept)
        ctx.temperature = temperature
        ctx.set_materialize_grads(False)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, grad_logprobs_N: Tensor | None, grad_entropy_N: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_ND, weight_VD, token_ids_N, entropy_N, *kept = ctx.saved_tensors
        grad_hidden_ND, grad_weight_VD = torch.empty_like(hidden_ND), torch.zeros_like(weight_VD)
        for i, rows in enumerate(chunks(len(hidden_ND), len(weight_VD))):
            all_logprobs = kept[i] if kept else all_logprobs_of(hidden_ND[rows], weight_VD, ctx.temperature)
            p = all_logprobs.exp()
            grad_logits = torch.zeros_like(p) if grad_logprobs_N is None else p * -grad_logprobs_N[rows, None]
            if grad_logprobs_N is not None:
                grad_logits.scatter_add_(-1, token_ids_N[rows, None], grad_logprobs_N[rows, None])
            if grad_entropy_N is not None:
                grad_logits -= grad_entropy_N[rows, None] * p * (all_logprobs + entropy_N[rows, None])
            if ctx.temperature != 1:
                grad_logits.div_(ctx.temperature)
            grad_logits = grad_logits.to(weight_VD.dtype)
            grad_hidden_ND[rows] = grad_logits @ weight_VD
            grad_weight_VD.addmm_(grad_logits.T, hidden_ND[rows])
        return grad_hidden_ND, grad_weight_VD, None, None


def all_logprobs_of(hidden_ND: Tensor, weight_VD: Tensor, temperature: float) -> Tensor:
    """[N, V] log-probabilities at `temperature`."""
    logits = hidden_ND @ weight_VD.T
    precision = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return (logits if temperature == 1 else logits.to(precision).div_(temperature)).log_softmax(-1, dtype=precision)


def chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose logits fit LOGITS_AT_ONCE."""
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
