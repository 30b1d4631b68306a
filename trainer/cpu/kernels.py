"""What lies between a decoder layer's matrix products, on a CPU, for float32 and float64.

Each kernel runs in the thread that calls it and lets other Python threads run meanwhile; what it writes is preallocated.
Compiled at its first call and kept (trainer/cpu/compile.py). NaN passes through.

Axes: R row (a packed token), D hidden, H query head, K key head, S head size, M width of the MLP, C sequence, or branch of
sequences that begin alike (trainer/cpu/branches.py), T its own rows, L its tokens, with those before them that it shares.
Queries, keys and values of a token lie one after another: `qkv` [R, (H + 2 K) S].
"""

import math

import numpy as np

from trainer.cpu.blas import product
from trainer.cpu.compile import exp, exponentials, kernel, largest_of


@kernel
def norm(x, weight, eps, out, scale):
    """RMS norm: `out` = x * scale * weight, with `scale` [R] = 1 / sqrt(mean(x^2) + eps)."""
    rows, width = x.shape
    for row in range(rows):
        total = x.dtype.type(0)
        for i in range(width):
            total += x[row, i] * x[row, i]
        factor = x.dtype.type(1 / math.sqrt(total / width + eps))
        scale[row] = factor
        for i in range(width):
            out[row, i] = x[row, i] * factor * weight[i]


@kernel
def norm_backward(x, weight, scale, grad, grad_weight, grad_x, out):
    """Adds to `grad_weight` [D] and `grad_x` [R, D] what the gradient `grad` of `norm`'s output gives; `out` is that output."""
    rows, width = x.shape
    for row in range(rows):
        factor, total = scale[row], x.dtype.type(0)
        if factor == 0:  # the square of a number has overflowed: a step with it must not be taken
            factor = x.dtype.type(np.nan)
        for i in range(width):
            total += grad[row, i] * weight[i] * x[row, i]
        shift = total * factor * factor / x.dtype.type(width)
        for i in range(width):
            grad_x[row, i] += factor * (grad[row, i] * weight[i] - x[row, i] * shift)
        for i in range(width):
            grad_weight[i] += grad[row, i] * x[row, i] * factor
        for i in range(width):
            out[row, i] = x[row, i] * factor * weight[i]


@kernel
def gate(gate_up, out):
    """`out` [R, M] = silu(gate) * up of `gate_up` [R, 2 M]."""
    rows, width = out.shape
    one = out.dtype.type(1)
    for row in range(rows):
        for i in range(width):
            x = gate_up[row, i]
            out[row, i] = x / (one + exp(-x)) * gate_up[row, width + i]


@kernel
def gate_backward(gate_up, grad, out, grad_gate_up):
    """`grad_gate_up` [R, 2 M] of `grad` [R, M]; `out` [R, M] is what `gate` gave."""
    rows, width = out.shape
    one = out.dtype.type(1)
    share = np.empty(width, out.dtype)
    for row in range(rows):
        x, up, g = gate_up[row, :width], gate_up[row, width:], grad[row]
        of_x, of_up, given = grad_gate_up[row, :width], grad_gate_up[row, width:], out[row]
        for i in range(width):
            share[i] = one / (one + exp(-x[i]))
        for i in range(width):
            given[i] = x[i] * share[i] * up[i]
        for i in range(width):
            of_up[i] = g[i] * x[i] * share[i]
        for i in range(width):
            of_x[i] = g[i] * up[i] * share[i] * (one + x[i] - x[i] * share[i])


@kernel
def to_heads(qkv, weights, eps, factor, cos, sin, starts, query, key, value, scale):
    """Of `qkv` [R, (H + 2 K) S] each head's `query` [C, H, T, S], and the last T tokens of its `key` and `value` [C, K, L, S].

    Queries and keys are normed where `weights` [H + K, S] are given (else [0, 0]), with the norm's `scale` [R, H + K], then
    rotated by position (`cos`, `sin` [R, S], of which the first half negated), and queries multiplied by `factor`. `starts`
    [C]: the row with which each sequence's T tokens begin.
    """
    sequences, heads, length, size = query.shape
    key_heads, half, normed = key.shape[1], size // 2, len(weights) > 0
    before = key.shape[2] - length
    x = np.empty(2 * size, qkv.dtype)  # twice: what stands half of it away then lies behind, and loops run over whole vectors
    for n in range(sequences):
        for head in range(heads + key_heads):
            out = query[n, head] if head < heads else key[n, head - heads, before:]
            times = qkv.dtype.type(factor) if head < heads else qkv.dtype.type(1)
            for i in range(length):
                row = starts[n] + i
                if normed:
                    total = qkv.dtype.type(0)
                    for d in range(size):
                        total += qkv[row, head * size + d] * qkv[row, head * size + d]
                    share = qkv.dtype.type(1 / math.sqrt(total / size + eps))
                    scale[row, head] = share
                    share *= times
                    for d in range(size):
                        x[d] = qkv[row, head * size + d] * share * weights[head, d]
                else:
                    for d in range(size):
                        x[d] = qkv[row, head * size + d] * times
                for d in range(size):
                    x[size + d] = x[d]
                for d in range(size):
                    out[i, d] = x[d] * cos[row, d] + x[half + d] * sin[row, d]
        spread(qkv, starts[n], (heads + key_heads) * size, before, value[n])


@kernel
def to_heads_backward(qkv, weights, factor, cos, sin, starts, scale, of_query, of_key, of_value, grad_weights, grad_qkv):
    """`grad_qkv` of the gradients of `to_heads`' outputs; adds to `grad_weights` [H + K, S]."""
    sequences, heads, length, size = of_query.shape
    key_heads, half, normed = of_key.shape[1], size // 2, len(weights) > 0
    before = of_key.shape[2] - length
    x, grad, turned = np.empty(size, qkv.dtype), np.empty(size, qkv.dtype), np.empty(2 * size, qkv.dtype)
    for n in range(sequences):
        for head in range(heads + key_heads):
            given = of_query[n, head] if head < heads else of_key[n, head - heads, before:]
            times = qkv.dtype.type(factor) if head < heads else qkv.dtype.type(1)
            for i in range(length):
                row = starts[n] + i
                for d in range(size):
                    turned[d] = given[i, d] * sin[row, d]
                for d in range(size):
                    turned[size + d] = turned[d]
                for d in range(size):
                    grad[d] = (given[i, d] * cos[row, d] + turned[half + d]) * times
                if normed:
                    share, total = scale[row, head], qkv.dtype.type(0)
                    if share == 0:  # as in norm_backward
                        share = qkv.dtype.type(np.nan)
                    for d in range(size):
                        x[d] = qkv[row, head * size + d] * share
                    for d in range(size):
                        grad_weights[head, d] += grad[d] * x[d]
                    for d in range(size):
                        grad[d] *= weights[head, d]
                    for d in range(size):
                        total += grad[d] * x[d]
                    shift = total / qkv.dtype.type(size)
                    for d in range(size):
                        grad[d] = share * (grad[d] - x[d] * shift)
                for d in range(size):
                    grad_qkv[row, head * size + d] = grad[d]
        gather(of_value[n], before, starts[n], (heads + key_heads) * size, grad_qkv)


@kernel
def spread(rows, start, first, before, out):
    """The heads in the columns of `rows` from `first` on: those from row `start` on are `out` [H, L, S] from `before` on."""
    heads, length, size = out.shape
    for head in range(heads):
        for i in range(length - before):
            for d in range(size):
                out[head, before + i, d] = rows[start + i, first + head * size + d]


@kernel
def gather(by_head, before, start, first, out):
    """What `spread` does, backwards."""
    heads, length, size = by_head.shape
    for head in range(heads):
        for i in range(length - before):
            for d in range(size):
                out[start + i, first + head * size + d] = by_head[head, before + i, d]


@kernel
def weigh(scores, log_sum):
    """Causal softmax in place of `scores` [H, T, L] of the last T of L tokens; `log_sum` [H, T] of each's exponentials."""
    heads, length = log_sum.shape
    before = scores.shape[2] - length
    for head in range(heads):
        for i in range(length):
            row, seen = scores[head, i], before + i + 1
            largest = largest_of(row, seen)
            log_sum[head, i] = largest
            for j in range(seen):
                row[j] -= largest
            row[seen:] = 0
        exponentials(scores[head].reshape(-1))
        for i in range(length):
            row, seen, total = scores[head, i], before + i + 1, scores.dtype.type(0)
            for j in range(seen):
                total += row[j]
            log_sum[head, i] += math.log(total)
            share = scores.dtype.type(1) / total
            for j in range(seen):
                row[j] *= share
            row[seen:] = 0


@kernel
def weigh_backward(scores, log_sum, grad):
    """Of `scores` [H, T, L] the weights, in place; of their gradient `grad` that of the scores, in place."""
    heads, length = log_sum.shape
    before = scores.shape[2] - length
    for head in range(heads):
        for i in range(length):
            row, seen = scores[head, i], before + i + 1
            for j in range(seen):
                row[j] -= log_sum[head, i]
            row[seen:] = 0
        exponentials(scores[head].reshape(-1))
        for i in range(length):
            row, slope, seen, mean = scores[head, i], grad[head, i], before + i + 1, scores.dtype.type(0)
            for j in range(seen):
                mean += row[j] * slope[j]
            for j in range(seen):
                slope[j] = row[j] * (slope[j] - mean)
            row[seen:] = 0
            slope[seen:] = 0


@kernel
def heads_of(parts, at, rows, length, heads, key_heads, size):
    """What lies from `at` on in `parts`: query [1, H, T, S] of T `rows`, key and value [1, K, L, S] of `length` tokens."""
    second = at + rows * heads * size
    third = second + length * key_heads * size
    return (
        parts[at:second].reshape((1, heads, rows, size)),
        parts[second:third].reshape((1, key_heads, length, size)),
        parts[third : third + length * key_heads * size].reshape((1, key_heads, length, size)),
    )


@kernel
def parts_from(starts, shared, heads, key_heads, size):
    """[C + 1]: where in `parts` each branch's begin, and where the last's end."""
    found = np.zeros(len(starts), np.int64)
    for n in range(len(shared)):
        rows = starts[n + 1] - starts[n]
        found[n + 1] = found[n] + rows * heads * size + 2 * (shared[n] + rows) * key_heads * size
    return found


@kernel
def copy_heads(source, length, out):
    """The first `length` tokens of each head of `source` [K, L, S] into `out` [K, L', S]."""
    heads, _, size = source.shape
    for head in range(heads):
        for i in range(length):
            for d in range(size):
                out[head, i, d] = source[head, i, d]


@kernel
def most(starts, shared):
    """(tokens, rows, products of both) of the branches that have the most."""
    rows = np.diff(starts)
    return (rows + shared).max(), rows.max(), (rows * (rows + shared)).max()


@kernel
def attend(qkv, weights, eps, factor, cos, sin, starts, shared, parts, scale, log_sum, out):
    """Causal attention within each branch, `out` [R, H S]. Written too: `parts` (`heads_of`), `log_sum` [R H] (`weigh`).

    `starts` [C + 1]: the row with which each branch's own tokens begin, and the end of the last; `shared` [C]: the tokens
    before them, with which the branch before begins too. The rest as in `to_heads`.
    """
    size = cos.shape[1]
    heads = out.shape[1] // size
    key_heads = scale.shape[1] - heads
    group, places = heads // key_heads, parts_from(starts, shared, heads, key_heads, size)
    _, most_rows, most_scores = most(starts, shared)
    room, of_room = np.empty(heads * most_scores, qkv.dtype), np.empty(heads * most_rows * size, qkv.dtype)
    _, last_key, last_value = heads_of(parts, 0, 0, 0, heads, key_heads, size)
    for n in range(len(shared)):
        at, rows, before = starts[n : n + 1], starts[n + 1] - starts[n], shared[n]
        length = before + rows
        query, key, value = heads_of(parts, places[n], rows, length, heads, key_heads, size)
        copy_heads(last_key[0], before, key[0])
        copy_heads(last_value[0], before, value[0])
        last_key, last_value = key, value
        to_heads(qkv, weights, eps, factor, cos, sin, at, query, key, value, scale)
        scores = room[: heads * rows * length].reshape((heads, rows, length))
        by_head = of_room[: heads * rows * size].reshape((heads, rows, size))
        grouped = scores.reshape((key_heads, group * rows, length))
        asked, given = query.reshape((key_heads, group * rows, size)), by_head.reshape((key_heads, group * rows, size))
        for head in range(key_heads):
            product(asked[head], key[0, head], False, True, 0, grouped[head])
        weigh(scores, log_sum[starts[n] * heads : starts[n + 1] * heads].reshape((heads, rows)))
        for head in range(key_heads):
            product(grouped[head], value[0, head], False, False, 0, given[head])
        gather(by_head, 0, starts[n], 0, out)


@kernel
def attend_backward(qkv, weights, factor, cos, sin, starts, shared, parts, scale, log_sum, grad, grad_weights, grad_qkv):
    """`grad_qkv` of the gradient `grad` [R, H S] of `attend`'s output; adds to `grad_weights` [H + K, S].

    From the last branch to the first: what reaches the keys and values that it shares goes on to the branch before, which has
    them all.
    """
    size = cos.shape[1]
    heads = grad.shape[1] // size
    key_heads = scale.shape[1] - heads
    group, places = heads // key_heads, parts_from(starts, shared, heads, key_heads, size)
    most_tokens, most_rows, most_scores = most(starts, shared)
    room, of_room = np.empty(heads * most_scores, qkv.dtype), np.empty(heads * most_scores, qkv.dtype)
    grads = np.empty(most_rows * heads * size + 2 * most_tokens * key_heads * size, qkv.dtype)
    outs = np.empty(heads * most_rows * size, qkv.dtype)
    of_shared = np.empty((2, key_heads, shared.max(), size), qkv.dtype)
    due = 0  # tokens of which `of_shared` holds the gradients that come from later branches
    for n in range(len(shared) - 1, -1, -1):
        at, rows = starts[n : n + 1], starts[n + 1] - starts[n]
        length = shared[n] + rows
        query, key, value = heads_of(parts, places[n], rows, length, heads, key_heads, size)
        of_query, of_key, of_value = heads_of(grads, 0, rows, length, heads, key_heads, size)
        by_head = outs[: heads * rows * size].reshape((heads, rows, size))
        spread(grad, starts[n], 0, 0, by_head)
        asked, given = query.reshape((key_heads, group * rows, size)), by_head.reshape((key_heads, group * rows, size))
        scores = room[: heads * rows * length].reshape((key_heads, group * rows, length))
        slopes = of_room[: heads * rows * length].reshape((key_heads, group * rows, length))
        for head in range(key_heads):
            product(asked[head], key[0, head], False, True, 0, scores[head])
            product(given[head], value[0, head], False, True, 0, slopes[head])
        weigh_backward(
            scores.reshape((heads, rows, length)),
            log_sum[starts[n] * heads : starts[n + 1] * heads].reshape((heads, rows)),
            slopes.reshape((heads, rows, length)),
        )
        if due > 0:
            of_key[:] = 0
            of_value[:] = 0
            copy_heads(of_shared[0], due, of_key[0])
            copy_heads(of_shared[1], due, of_value[0])
        of_asked = of_query.reshape((key_heads, group * rows, size))
        for head in range(key_heads):
            product(slopes[head], key[0, head], False, False, 0, of_asked[head])
            product(slopes[head], asked[head], True, False, due > 0, of_key[0, head])
            product(scores[head], given[head], True, False, due > 0, of_value[0, head])
        to_heads_backward(qkv, weights, factor, cos, sin, at, scale, of_query, of_key, of_value, grad_weights, grad_qkv)
        due = shared[n]
        copy_heads(of_key[0], due, of_shared[0])
        copy_heads(of_value[0], due, of_shared[1])
