"""Log-probabilities and entropies of tokens from hidden states, without ever holding all logits.

Axes: N token, D hidden, V vocabulary. The backward pass is written out: with p = softmax(logits / temperature),

    d logprob / d logit = (onehot - p) / temperature        d entropy / d logit = -p (log p + entropy) / temperature

so that only log p is needed, and where it is large not even that: it is made again in the backward pass.
"""

from collections.abc import Callable, Iterator
from functools import partial
from math import ceil
from typing import Any

import torch
from torch import Tensor

from trainer.cpu import softmax
from trainer.cpu.threads import in_threads
from trainer.cpu.weights import run

LOGITS_AT_ONCE = 2**23  # elements made at a time: 32 MiB in float32
LOGITS_KEPT = 2**26  # elements of log p kept for the backward pass at most: 256 MiB in float32


def head_logprobs(hidden_ND: Tensor, weight_VD: Tensor, token_ids_N: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """(log-probability of each token, entropy of the distribution there), nats, at `temperature`; both differentiable.

    In float32, or float64 where the hidden states are. On a CPU raises IndexError for a token that the head does not know.
    """
    logprobs_N, entropy_N = _HeadLogprobs.apply(hidden_ND, weight_VD, token_ids_N, temperature, torch.is_grad_enabled())  # type: ignore[no-untyped-call]
    return logprobs_N, entropy_N


class _HeadLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden_ND: Tensor, weight_VD: Tensor, token_ids_N: Tensor, temperature: float, backward_follows: bool
    ) -> tuple[Tensor, Tensor]:
        precision = torch.float64 if hidden_ND.dtype == torch.float64 else torch.float32
        logprobs_N = hidden_ND.new_empty(len(hidden_ND), dtype=precision)
        entropy_N = torch.empty_like(logprobs_N)
        keep = backward_follows and any(ctx.needs_input_grad) and len(hidden_ND) * len(weight_VD) <= LOGITS_KEPT
        kept = []
        for rows in chunks(len(hidden_ND), len(weight_VD)):
            all_logprobs = all_logprobs_of(
                hidden_ND[rows], weight_VD, token_ids_N[rows], temperature, logprobs_N[rows], entropy_N[rows]
            )
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
            tokens, entropy = token_ids_N[rows], entropy_N[rows]
            none = torch.zeros_like(entropy)
            again = (tokens, ctx.temperature, torch.empty_like(entropy), torch.empty_like(entropy))
            all_logprobs = kept[i] if kept else all_logprobs_of(hidden_ND[rows], weight_VD, *again)
            grad_logprobs = none if grad_logprobs_N is None else grad_logprobs_N[rows]
            grad_entropy = none if grad_entropy_N is None else grad_entropy_N[rows]
            grad_logits = logits_gradient(all_logprobs, tokens, ctx.temperature, entropy, grad_logprobs, grad_entropy)
            grad_logits = grad_logits.to(weight_VD.dtype)
            grad_hidden_ND[rows] = grad_logits @ weight_VD
            grad_weight_VD.addmm_(grad_logits.T, hidden_ND[rows])
        return grad_hidden_ND, grad_weight_VD, None, None, None


def all_logprobs_of(
    hidden_ND: Tensor, weight_VD: Tensor, token_ids_N: Tensor, temperature: float, logprobs_N: Tensor, entropy_N: Tensor
) -> Tensor:
    """[N, V] log-probabilities at `temperature`; writes those of the tokens and the entropies."""
    logits = hidden_ND @ weight_VD.T
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if in_kernels(logits.device):
        lowest, highest = map(int, token_ids_N.aminmax()) if len(token_ids_N) else (0, 0)
        if lowest < 0 or highest >= len(weight_VD):  # kernels do not look
            raise IndexError(f"token ids from {lowest} to {highest}, and a head of {len(weight_VD)}")
        by_rows(softmax.log_probabilities, logits, token_ids_N, temperature, logprobs_N, entropy_N)
        return logits
    all_logprobs = logits.div_(temperature).log_softmax(-1)
    torch.gather(all_logprobs, -1, token_ids_N[:, None], out=logprobs_N[:, None])
    entropy_N.copy_(torch.linalg.vecdot(all_logprobs.exp(), all_logprobs).neg_())
    return all_logprobs


def logits_gradient(
    all_logprobs: Tensor,
    token_ids_N: Tensor,
    temperature: float,
    entropy_N: Tensor,
    of_logprobs_N: Tensor,
    of_entropy_N: Tensor,
) -> Tensor:
    """[N, V], of the gradients of the tokens' log-probabilities and of the entropies."""
    if in_kernels(all_logprobs.device):
        grad = torch.empty_like(all_logprobs)
        given = (all_logprobs, token_ids_N, temperature, entropy_N, of_logprobs_N, of_entropy_N)
        by_rows(softmax.log_probabilities_backward, *given, grad)
        return grad
    grad = (all_logprobs + entropy_N[:, None]).mul_(of_entropy_N[:, None]).add_(of_logprobs_N[:, None])
    grad.mul_(all_logprobs.exp()).neg_().scatter_add_(-1, token_ids_N[:, None], of_logprobs_N[:, None])
    return grad.div_(temperature)


def in_kernels(device: torch.device) -> bool:
    """On a CPU one kernel takes each row through its dozen operations while it is in the cache."""
    return device.type == "cpu"


def by_rows(kernel: Callable[..., None], *arguments: object) -> None:
    """Calls a kernel with parts of the rows of each tensor, a part a thread."""
    rows = next(len(argument) for argument in arguments if isinstance(argument, Tensor))
    part = max(1, ceil(rows / torch.get_num_threads()))

    def work(start: int) -> None:
        run(kernel, *(one[start : start + part] if isinstance(one, Tensor) else one for one in arguments))

    in_threads([partial(work, start) for start in range(0, rows, part)])


def chunks(rows: int, vocabulary: int) -> Iterator[slice]:
    """Slices of rows whose logits fit LOGITS_AT_ONCE."""
    size = max(1, LOGITS_AT_ONCE // vocabulary)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))
