"""The head's softmax on a CPU, row by row. Axes: R row, V vocabulary."""

import math

import numpy as np

from trainer.cpu.compile import exp, kernel, largest_of


@kernel
def log_probabilities(logits, tokens, temperature, logprobs, entropies):
    """In place of `logits` [R, V] the log-probabilities at `temperature`; `logprobs` [R] of `tokens` [R], `entropies` [R]."""
    rows, vocabulary = logits.shape
    over = logits.dtype.type(1 / temperature)
    weights = np.empty(vocabulary, logits.dtype)
    for row in range(rows):
        largest, total, sum_of = largest_of(logits[row], vocabulary), logits.dtype.type(0), logits.dtype.type(0)
        for token in range(vocabulary):
            logits[row, token] = (logits[row, token] - largest) * over
        for token in range(vocabulary):
            weights[token] = exp(logits[row, token])
        for token in range(vocabulary):
            total += weights[token]
            sum_of += weights[token] * logits[row, token]
        shift = logits.dtype.type(math.log(total))
        for token in range(vocabulary):
            logits[row, token] -= shift
        logprobs[row] = logits[row, tokens[row]]
        entropies[row] = shift - sum_of / total


@kernel
def log_probabilities_backward(logprobs, tokens, temperature, entropies, grad, grad_entropies, out):
    """`out` [R, V], the gradient of `log_probabilities`' logits, of `grad` [R] and `grad_entropies` [R]; `logprobs` [R, V]."""
    rows, vocabulary = out.shape
    over = out.dtype.type(1 / temperature)
    for row in range(rows):
        of_logprob, of_entropy, entropy = grad[row] * over, grad_entropies[row] * over, entropies[row]
        for token in range(vocabulary):
            logprob = logprobs[row, token]
            out[row, token] = -exp(logprob) * (of_logprob + of_entropy * (logprob + entropy))
        out[row, tokens[row]] += of_logprob
