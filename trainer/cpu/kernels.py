"""What lies between a decoder layer's matrix products, on a CPU, for float32 and float64.

Each kernel runs in the thread that calls it and lets other Python threads run meanwhile; what it writes is preallocated.
Compiled at its first call and kept beside this file (numba's cache). NaN and infinity pass through.

Axes: R row (a packed token), D hidden, H query head, K key head, S head size, M width of the MLP, C sequence. Queries, keys
and values of a token lie one after another: `qkv` [R, (H + 2 K) S], `qk` [R, (H + K) S].
"""

import math

import numpy as np
from numba import njit, types
from numba.extending import overload

from trainer.cpu.blas import product

# Sums may be reordered, so that they are computed many at a time; that there were no NaN and infinity is not assumed.
FAST = {"reassoc", "contract", "arcp", "nsz"}
VECTOR = 32  # numbers that are computed together at most


def kernel(function):
    """Compiles at the first call. Where there is no folder to keep the result in, each process does."""
    options = {"nogil": True, "error_model": "numpy", "fastmath": FAST}
    try:
        return njit(cache=True, **options)(function)
    except RuntimeError:
        return njit(**options)(function)


def exp(x):
    """e to the power of a number, inside kernels."""
    raise NotImplementedError


@overload(exp, inline="always")
def _exp(x):
    """float32: Cephes' expf, 2 units in the last place, which unlike the C library's is computed many at a time."""
    if x != types.float32:
        return lambda x: math.exp(x)  # noqa: PLW0108  # numba compiles functions of Python

    def expf(x):
        x = np.float32(-87.0) if x < np.float32(-87.0) else x  # not max(), which would lose NaN
        x = np.float32(88.0) if x > np.float32(88.0) else x
        n = np.floor(x * np.float32(1.44269504088896341) + np.float32(0.5))
        r = x - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
        p = np.float32(1.9875691500e-4)
        p = p * r + np.float32(1.3981999507e-3)
        p = p * r + np.float32(8.3334519073e-3)
        p = p * r + np.float32(4.1665795894e-2)
        p = p * r + np.float32(1.6666665459e-1)
        p = p * r + np.float32(5.0000001201e-1)
        p = p * r * r + r + np.float32(1.0)
        power = np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)
        return p * power

    return expf


@kernel
def _largest(row, count):
    """Where there is NaN, some number or NaN."""
    largest = row[0]
    for j in range(count):
        largest = row[j] if row[j] > largest else largest
    return largest


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
    """Of `qkv` [R, (H + 2 K) S] each head's `query` [C, H, L, S], `key` and `value` [C, K, L, S]; 0 beyond a sequence's end.

    Queries and keys are normed where `weights` [H + K, S] are given (else [0, 0]), with the norm's `scale` [R, H + K], then
    rotated by position (`cos`, `sin` [R, S], of which the first half negated), and queries multiplied by `factor`. `starts`
    [C + 1]: the row with which each sequence begins, and the end of the last.
    """
    sequences, heads, _, size = query.shape
    key_heads, half, normed = key.shape[1], size // 2, len(weights) > 0
    x = np.empty(2 * size, qkv.dtype)  # twice: what stands half of it away then lies behind, and loops run over whole vectors
    for n in range(sequences):
        length = starts[n + 1] - starts[n]
        for head in range(heads + key_heads):
            out = query[n, head] if head < heads else key[n, head - heads]
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
            out[length:] = 0
        _to_heads(qkv, (heads + key_heads) * size, starts[n], length, value[n])


@kernel
def to_heads_backward(qkv, weights, factor, cos, sin, starts, scale, of_query, of_key, of_value, grad_weights, grad_qkv):
    """`grad_qkv` of the gradients of `to_heads`' outputs; adds to `grad_weights` [H + K, S]."""
    sequences, heads, _, size = of_query.shape
    key_heads, half, normed = of_key.shape[1], size // 2, len(weights) > 0
    x, grad, turned = np.empty(size, qkv.dtype), np.empty(size, qkv.dtype), np.empty(2 * size, qkv.dtype)
    for n in range(sequences):
        length = starts[n + 1] - starts[n]
        for head in range(heads + key_heads):
            given = of_query[n, head] if head < heads else of_key[n, head - heads]
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
        _from_heads(of_value[n], (heads + key_heads) * size, starts[n], length, grad_qkv)


@kernel
def spread(rows, starts, out):
    """`rows` [R, H S] by head, `out` [C, H, L, S]; 0 beyond a sequence's end."""
    for n in range(len(out)):
        _to_heads(rows, 0, starts[n], starts[n + 1] - starts[n], out[n])


@kernel
def gather(by_head, starts, out):
    """What `spread` does, backwards."""
    for n in range(len(by_head)):
        _from_heads(by_head[n], 0, starts[n], starts[n + 1] - starts[n], out)


@kernel
def _to_heads(rows, first, start, length, out):
    heads, _, size = out.shape
    for head in range(heads):
        at = first + head * size
        for i in range(length):
            for d in range(size):
                out[head, i, d] = rows[start + i, at + d]
        out[head, length:] = 0


@kernel
def _from_heads(by_head, first, start, length, out):
    heads, _, size = by_head.shape
    for head in range(heads):
        at = first + head * size
        for i in range(length):
            for d in range(size):
                out[start + i, at + d] = by_head[head, i, d]


@kernel
def weigh(scores, starts, log_sum):
    """Causal softmax in place of `scores` [C, H, L, L]; `log_sum` [C, H, L] is the log of each query's sum of exponentials."""
    sequences, heads = scores.shape[:2]
    for n in range(sequences):
        length = starts[n + 1] - starts[n]
        for head in range(heads):
            for i in range(length):
                row = scores[n, head, i]
                largest = _largest(row, i + 1)
                log_sum[n, head, i] = largest
                for j in range(i + 1):
                    row[j] -= largest
                row[i + 1 :] = 0
            scores[n, head, length:] = 0
            exponentials(scores[n, head].reshape(-1))
            for i in range(length):
                row = scores[n, head, i]
                total = scores.dtype.type(0)
                for j in range(i + 1):
                    total += row[j]
                log_sum[n, head, i] += math.log(total)
                share = scores.dtype.type(1) / total
                for j in range(i + 1):
                    row[j] *= share
                row[i + 1 :] = 0
            scores[n, head, length:] = 0


@kernel
def weigh_backward(scores, starts, log_sum, grad):
    """Of `scores` [C, H, L, L] the weights, in place; of their gradient `grad` that of the scores, in place."""
    sequences, heads = scores.shape[:2]
    for n in range(sequences):
        length = starts[n + 1] - starts[n]
        for head in range(heads):
            for i in range(length):
                row, shift = scores[n, head, i], log_sum[n, head, i]
                for j in range(i + 1):
                    row[j] -= shift
                row[i + 1 :] = 0
            scores[n, head, length:] = 0
            exponentials(scores[n, head].reshape(-1))
            for i in range(length):
                row, slope = scores[n, head, i], grad[n, head, i]
                mean = scores.dtype.type(0)
                for j in range(i + 1):
                    mean += row[j] * slope[j]
                for j in range(i + 1):
                    slope[j] = row[j] * (slope[j] - mean)
                row[i + 1 :] = 0
                slope[i + 1 :] = 0
            scores[n, head, length:] = 0
            grad[n, head, length:] = 0


@kernel
def exponentials(flat):
    """In place; many at a time, which rows of a few numbers are too short for."""
    for k in range(len(flat)):
        flat[k] = exp(flat[k])


@kernel
def heads_of(parts, start, end, heads, key_heads, size):
    """Of the sequence in rows `start` to `end`: query [1, H, T, S], key and value [1, K, T, S], in `parts` [R (H + 2 K) S]."""
    length, width = end - start, (heads + 2 * key_heads) * size
    first = start * width
    second = first + length * heads * size
    third = second + length * key_heads * size
    return (
        parts[first:second].reshape((1, heads, length, size)),
        parts[second:third].reshape((1, key_heads, length, size)),
        parts[third : end * width].reshape((1, key_heads, length, size)),
    )


@kernel
def attend(qkv, weights, eps, factor, cos, sin, starts, parts, scale, log_sum, out):
    """Causal attention within each sequence, `out` [R, H S]. Written too: `parts` (`heads_of`), `log_sum` [R H] (`weigh`)."""
    size = cos.shape[1]
    heads = out.shape[1] // size
    key_heads = scale.shape[1] - heads
    group, longest = heads // key_heads, np.diff(starts).max()
    room, of_room = np.empty(heads * longest * longest, qkv.dtype), np.empty(heads * longest * size, qkv.dtype)
    for n in range(len(starts) - 1):
        bounds, length = starts[n : n + 2], starts[n + 1] - starts[n]
        query, key, value = heads_of(parts, starts[n], starts[n + 1], heads, key_heads, size)
        to_heads(qkv, weights, eps, factor, cos, sin, bounds, query, key, value, scale)
        scores = room[: heads * length * length].reshape((1, heads, length, length))
        by_head = of_room[: heads * length * size].reshape((1, heads, length, size))
        grouped = room[: heads * length * length].reshape((key_heads, group * length, length))
        asked, given = query.reshape((key_heads, group * length, size)), by_head.reshape((key_heads, group * length, size))
        for head in range(key_heads):
            product(asked[head], key[0, head], False, True, 0, grouped[head])
        weigh(scores, bounds - starts[n], log_sum[starts[n] * heads : starts[n + 1] * heads].reshape((1, heads, length)))
        for head in range(key_heads):
            product(grouped[head], value[0, head], False, False, 0, given[head])
        gather(by_head, bounds, out)


@kernel
def attend_backward(qkv, weights, factor, cos, sin, starts, parts, scale, log_sum, grad, grad_weights, grad_qkv):
    """`grad_qkv` of the gradient `grad` [R, H S] of `attend`'s output; adds to `grad_weights` [H + K, S]."""
    size = cos.shape[1]
    heads = grad.shape[1] // size
    key_heads = scale.shape[1] - heads
    group, longest = heads // key_heads, np.diff(starts).max()
    room, of_room = np.empty(heads * longest * longest, qkv.dtype), np.empty(heads * longest * longest, qkv.dtype)
    grads = np.empty(longest * qkv.shape[1], qkv.dtype)
    outs = np.empty(heads * longest * size, qkv.dtype)
    for n in range(len(starts) - 1):
        bounds, length = starts[n : n + 2], starts[n + 1] - starts[n]
        query, key, value = heads_of(parts, starts[n], starts[n + 1], heads, key_heads, size)
        of_query, of_key, of_value = heads_of(grads, 0, length, heads, key_heads, size)
        by_head = outs[: heads * length * size].reshape((1, heads, length, size))
        spread(grad, bounds, by_head)
        asked, given = query.reshape((key_heads, group * length, size)), by_head.reshape((key_heads, group * length, size))
        scores = room[: heads * length * length].reshape((key_heads, group * length, length))
        slopes = of_room[: heads * length * length].reshape((key_heads, group * length, length))
        for head in range(key_heads):
            product(asked[head], key[0, head], False, True, 0, scores[head])
            product(given[head], value[0, head], False, True, 0, slopes[head])
        weigh_backward(
            scores.reshape((1, heads, length, length)),
            bounds - starts[n],
            log_sum[starts[n] * heads : starts[n + 1] * heads].reshape((1, heads, length)),
            slopes.reshape((1, heads, length, length)),
        )
        of_asked = of_query.reshape((key_heads, group * length, size))
        for head in range(key_heads):
            product(slopes[head], key[0, head], False, False, 0, of_asked[head])
            product(slopes[head], asked[head], True, False, 0, of_key[0, head])
            product(scores[head], given[head], True, False, 0, of_value[0, head])
        to_heads_backward(qkv, weights, factor, cos, sin, bounds, scale, of_query, of_key, of_value, grad_weights, grad_qkv)


@kernel
def forward(
    input_norms, qkv_weights, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm,
    eps, factor, cos, sin, starts, xs, scales, qkvs, parts, head_scales, log_sums, attendeds, middles, middle_scales, gates,
    last_scale, hidden,
):  # fmt: skip
    """All layers and the last norm: `hidden` [R, D] of `xs[0]`; weights as in trainer/cpu/layer.py.

    What the backward pass needs is written, of each layer (or over and over into the room for one): `xs` [layers + 1 (or 2),
    R, D] what goes into it, `scales` [., R] of its first norm, `qkvs` [., R, (H + 2 K) S], `parts`, `head_scales` and
    `log_sums` as in `attend`, `attendeds` [., R, H S] what attention gives, `middles` [., R, D] what goes into the second
    norm, its `middle_scales` [., R], and `gates` [., R, 2 M] what goes into `gate`.
    """
    rows, dtype = xs.shape[1], xs.dtype
    normed, gated = np.empty((rows, xs.shape[2]), dtype), np.empty((rows, downs.shape[2]), dtype)
    for layer in range(len(downs)):
        at, x, out = layer % len(scales), xs[layer % len(xs)], xs[(layer + 1) % len(xs)]
        norm(x, input_norms[layer], eps, normed, scales[at])
        if qkv_biases.shape[1] > 0:
            qkvs[at][:] = qkv_biases[layer]
        product(normed, qkv_weights[layer], False, True, qkv_biases.shape[1] > 0, qkvs[at])
        attend(
            qkvs[at], head_norms[layer], eps, factor, cos, sin, starts, parts[at], head_scales[at], log_sums[at], attendeds[at]
        )
        middles[at][:] = x
        product(attendeds[at], outputs[layer], False, True, 1, middles[at])
        norm(middles[at], post_norms[layer], eps, normed, middle_scales[at])
        product(normed, gate_ups[layer], False, True, 0, gates[at])
        gate(gates[at], gated)
        out[:] = middles[at]
        product(gated, downs[layer], False, True, 1, out)
    norm(xs[len(downs) % len(xs)], last_norm, eps, hidden, last_scale)


@kernel
def backward(
    input_norms, qkv_weights, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm,
    factor, cos, sin, starts, xs, scales, qkvs, parts, head_scales, log_sums, attendeds, middles, middle_scales, gates,
    last_scale, grad_hidden,
    of_input_norms, of_qkv_weights, of_qkv_biases, of_head_norms, of_outputs, of_post_norms, of_gate_ups, of_downs,
    of_last_norm, grad,
):  # fmt: skip
    """`grad` [R, D] of `xs[0]`, of the gradient `grad_hidden` of `forward`'s output; adds to the weights' gradients."""
    rows, dtype = grad.shape[0], grad.dtype
    normed, of_normed = np.empty_like(grad), np.empty_like(grad)
    gated, of_gated = np.empty((rows, downs.shape[2]), dtype), np.empty((rows, downs.shape[2]), dtype)
    of_gate_up, of_attended = np.empty((rows, gates.shape[2]), dtype), np.empty((rows, attendeds.shape[2]), dtype)
    of_qkv = np.empty((rows, qkvs.shape[2]), dtype)
    grad[:] = 0
    norm_backward(xs[len(downs)], last_norm, last_scale, grad_hidden, of_last_norm, grad, normed)
    for layer in range(len(downs) - 1, -1, -1):
        product(grad, downs[layer], False, False, 0, of_gated)
        gate_backward(gates[layer], of_gated, gated, of_gate_up)
        product(grad, gated, True, False, 1, of_downs[layer])
        product(of_gate_up, gate_ups[layer], False, False, 0, of_normed)
        norm_backward(middles[layer], post_norms[layer], middle_scales[layer], of_normed, of_post_norms[layer], grad, normed)
        product(of_gate_up, normed, True, False, 1, of_gate_ups[layer])
        product(grad, outputs[layer], False, False, 0, of_attended)
        product(grad, attendeds[layer], True, False, 1, of_outputs[layer])
        attend_backward(
            qkvs[layer], head_norms[layer], factor, cos, sin, starts, parts[layer], head_scales[layer], log_sums[layer],
            of_attended, of_head_norms[layer], of_qkv,
        )  # fmt: skip
        product(of_qkv, qkv_weights[layer], False, False, 0, of_normed)
        norm_backward(xs[layer], input_norms[layer], scales[layer], of_normed, of_input_norms[layer], grad, normed)
        product(of_qkv, normed, True, False, 1, of_qkv_weights[layer])
        if qkv_biases.shape[1] > 0:
            for row in range(rows):
                for i in range(of_qkv.shape[1]):
                    of_qkv_biases[layer, i] += of_qkv[row, i]


@kernel
def remember(parts, starts, copies, heads, keys, values):
    """Puts the sequences' keys and values into the cache, `keys` and `values` [P, K, L, S], each `copies` [C] times in turn."""
    key_heads, size, place = keys.shape[1], keys.shape[3], 0
    for n in range(len(copies)):
        _, key, value = heads_of(parts, starts[n], starts[n + 1], heads, key_heads, size)
        for _ in range(copies[n]):
            for head in range(key_heads):
                for i in range(starts[n + 1] - starts[n]):
                    for d in range(size):
                        keys[place, head, i, d] = key[0, head, i, d]
                        values[place, head, i, d] = value[0, head, i, d]
            place += 1


@kernel
def attend_next(query, key, value, places, lengths, keys, values, out):
    """Attention of one more token a row, `out` [R, H S], to it and those before it in the cache, where its key and value go.

    `query` [R, H, 1, S], `key` and `value` [R, K, 1, S] as of `to_heads`. `places` [R]: a row's place P in `keys` and `values`
    [P, K, L, S], of which its `lengths` [R] tokens are there.
    """
    rows, heads, _, size = query.shape
    key_heads = key.shape[1]
    scores, given = np.empty(keys.shape[2] + VECTOR, query.dtype), np.empty(size, query.dtype)
    for row in range(rows):
        place, at = places[row], lengths[row]
        end = (at // VECTOR + 1) * VECTOR
        for head in range(key_heads):
            for d in range(size):
                keys[place, head, at, d] = key[row, head, 0, d]
                values[place, head, at, d] = value[row, head, 0, d]
        for head in range(heads):
            key_head = head * key_heads // heads
            for j in range(at + 1):
                score = query.dtype.type(0)
                for d in range(size):
                    score += query[row, head, 0, d] * keys[place, key_head, j, d]
                scores[j] = score
            for j in range(at + 1, end):  # whole vectors of numbers, of which these get no weight
                scores[j] = scores[at]
            largest = _largest(scores, end)
            for j in range(end):
                scores[j] = exp(scores[j] - largest)
            for j in range(at + 1, end):
                scores[j] = 0
            total = query.dtype.type(0)
            for j in range(end):
                total += scores[j]
            share = query.dtype.type(1) / total
            for d in range(size):
                given[d] = 0
            for j in range(at + 1):
                weight = scores[j] * share
                for d in range(size):
                    given[d] += weight * values[place, key_head, j, d]
            for d in range(size):
                out[row, head * size + d] = given[d]


@kernel
def log_probabilities(logits, tokens, temperature, logprobs, entropies):
    """In place of `logits` [R, V] the log-probabilities at `temperature`; `logprobs` [R] of `tokens` [R], `entropies` [R]."""
    rows, vocabulary = logits.shape
    over = logits.dtype.type(1 / temperature)
    weights = np.empty(vocabulary, logits.dtype)
    for row in range(rows):
        largest, total, sum_of = _largest(logits[row], vocabulary), logits.dtype.type(0), logits.dtype.type(0)
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


@kernel
def draw(logits, temperature, top_p, uniform, weights):
    """(a token by inverse transform of the number `uniform`, its log-probability in nats) of `logits` [V].

    The number of tokens whose cumulated probability is at most `uniform`; the last one where that is NaN. At temperature 0
    the likeliest token. Below `top_p` 1 of the likeliest tokens those whose predecessors have less than so much together.
    `weights` [V] is overwritten.
    """
    vocabulary = len(logits)
    largest = _largest(logits, vocabulary)
    over = logits.dtype.type(1 / temperature if temperature > 0 else 1)
    for token in range(vocabulary):
        weights[token] = exp((logits[token] - largest) * over)
    total = 0.0
    for token in range(vocabulary):
        total += np.float64(weights[token])
    chosen = vocabulary - 1
    if temperature == 0:
        chosen = int(np.argmax(logits))
    else:
        if top_p < 1:
            before = 0.0
            for token in np.argsort(-weights, kind="mergesort"):
                weight = np.float64(weights[token])
                if before >= top_p * total:
                    weights[token] = 0
                before += weight
            total = 0.0
            for token in range(vocabulary):
                total += np.float64(weights[token])
        wanted, mass = uniform * total, 0.0
        for token in range(vocabulary):
            mass += np.float64(weights[token])
            if mass > wanted:
                chosen = token
                break
    return chosen, (logits[chosen] - largest) * over - math.log(total)


@kernel
def decode(
    x, input_norms, qkvs, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm, head,
    eps, factor, cos, sin, places, lengths, keys, values, logits,
):  # fmt: skip
    """One more token a row through all layers: `logits` [R, V] of its embeddings `x` [R, D], which are overwritten.

    The weights of all layers, as of trainer/cpu/layer.py, one after another; `keys`, `values` [layers, P, K, L, S]; `cos`,
    `sin` [R, S]; the rest as in `attend_next`.
    """
    rows, dtype, size, key_heads = len(x), x.dtype, cos.shape[1], keys.shape[2]
    heads = qkvs.shape[1] // size - 2 * key_heads
    normed, scale, qkv = np.empty_like(x), np.empty(rows, dtype), np.empty((rows, qkvs.shape[1]), dtype)
    query, attended = np.empty((rows, heads, 1, size), dtype), np.empty((rows, heads * size), dtype)
    key, value = np.empty((rows, key_heads, 1, size), dtype), np.empty((rows, key_heads, 1, size), dtype)
    head_scale, starts = np.empty((rows, heads + key_heads), dtype), np.arange(rows + 1)
    gate_up, gated = np.empty((rows, gate_ups.shape[1]), dtype), np.empty((rows, downs.shape[2]), dtype)
    for layer in range(len(qkvs)):
        norm(x, input_norms[layer], eps, normed, scale)
        if qkv_biases.shape[1] > 0:
            qkv[:] = qkv_biases[layer]
        product(normed, qkvs[layer], False, True, qkv_biases.shape[1] > 0, qkv)
        to_heads(qkv, head_norms[layer], eps, factor, cos, sin, starts, query, key, value, head_scale)
        attend_next(query, key, value, places, lengths, keys[layer], values[layer], attended)
        product(attended, outputs[layer], False, True, 1, x)
        norm(x, post_norms[layer], eps, normed, scale)
        product(normed, gate_ups[layer], False, True, 0, gate_up)
        gate(gate_up, gated)
        product(gated, downs[layer], False, True, 1, x)
    norm(x, last_norm, eps, normed, scale)
    product(normed, head, False, True, 0, logits)


@kernel
def continue_rows(
    logits, embeddings, input_norms, qkvs, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm, head,
    eps, factor, cos, sin, lengths, keys, values, temperature, top_p, uniform, ends, tokens, logprobs, counts,
):  # fmt: skip
    """Draws tokens until each row has drawn one of `ends` or as many as `uniform` [R, T] has numbers for it.

    `logits` [R, V] behind the prompts of `lengths` [R] tokens, whose `keys` and `values` are in the cache; `cos`, `sin` [L, S]
    of all positions. Written: `tokens` and `logprobs` [R, T], `counts` [R] of them. `logits` and `lengths` are overwritten.
    """
    rows, limit = uniform.shape
    x = np.empty((rows, embeddings.shape[1]), embeddings.dtype)
    turns = np.empty((2, rows, cos.shape[1]), cos.dtype)
    weights = np.empty(logits.shape[1], logits.dtype)
    places = np.arange(rows)
    for step in range(limit):
        left = 0
        for row in range(rows):
            place, at = places[row], lengths[row]
            token, logprob = draw(logits[row], temperature, top_p, uniform[place, step], weights)
            tokens[place, step], logprobs[place, step], counts[place] = token, logprob, step + 1
            ended = False
            for end in ends:
                ended |= token == end
            if not ended:
                places[left], lengths[left] = place, at
                x[left] = embeddings[token]
                turns[0, left], turns[1, left] = cos[at], sin[at]
                left += 1
        rows = left
        if rows == 0 or step + 1 == limit:
            break
        decode(
            x[:rows], input_norms, qkvs, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm, head,
            eps, factor, turns[0, :rows], turns[1, :rows], places[:rows], lengths[:rows], keys, values, logits[:rows],
        )  # fmt: skip
        lengths[:rows] += 1
