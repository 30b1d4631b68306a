"""A small model's whole passes on a CPU, each one kernel. Axes as in trainer/cpu/kernels.py; L tokens that a row may have."""

import math

import numpy as np

from trainer.cpu.blas import product
from trainer.cpu.compile import VECTOR, exp, kernel, largest_of
from trainer.cpu.kernels import (
    attend,
    attend_backward,
    copy_heads,
    gate,
    gate_backward,
    heads_of,
    norm,
    norm_backward,
    parts_from,
    to_heads,
)


@kernel
def forward(
    input_norms, qkv_weights, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm,
    eps, factor, cos, sin, starts, shared, xs, scales, qkvs, parts, head_scales, log_sums, attendeds, middles, middle_scales,
    gates, last_scale, hidden,
):  # fmt: skip
    """All layers and the last norm: `hidden` [R, D] of `xs[0]`; weights as in trainer/cpu/weights.py.

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
            qkvs[at], head_norms[layer], eps, factor, cos, sin, starts, shared, parts[at], head_scales[at], log_sums[at],
            attendeds[at],
        )  # fmt: skip
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
    factor, cos, sin, starts, shared, xs, scales, qkvs, parts, head_scales, log_sums, attendeds, middles, middle_scales, gates,
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
            qkvs[layer], head_norms[layer], factor, cos, sin, starts, shared, parts[layer], head_scales[layer], log_sums[layer],
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
def remember(parts, starts, shared, places, heads, keys, values):
    """Puts each branch's keys and values into the cache, `keys` and `values` [P, K, L, S], at its one of `places` [C]."""
    key_heads, size = keys.shape[1], keys.shape[3]
    at = parts_from(starts, shared, heads, key_heads, size)
    for n in range(len(places)):
        rows = starts[n + 1] - starts[n]
        length = shared[n] + rows
        _, key, value = heads_of(parts, at[n], rows, length, heads, key_heads, size)
        copy_heads(key[0], length, keys[places[n]])
        copy_heads(value[0], length, values[places[n]])


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
            largest = largest_of(scores, end)
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
def draw(logits, temperature, top_p, uniform, weights):
    """(a token by inverse transform of the number `uniform`, its log-probability in nats) of `logits` [V].

    The number of tokens whose cumulated probability is at most `uniform`; the last one where that is NaN. At temperature 0
    the likeliest token. Below `top_p` 1 of the likeliest tokens those whose predecessors have less than so much together.
    `weights` [V] is overwritten.
    """
    vocabulary = len(logits)
    largest = largest_of(logits, vocabulary)
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

    The weights of all layers, as of trainer/cpu/weights.py, one after another; `keys`, `values` [layers, P, K, L, S]; `cos`,
    `sin` [R, S]; the rest as in `attend_next`.
    """
    rows, dtype, size, key_heads = len(x), x.dtype, cos.shape[1], keys.shape[2]
    heads = qkvs.shape[1] // size - 2 * key_heads
    normed, scale, qkv = np.empty_like(x), np.empty(rows, dtype), np.empty((rows, qkvs.shape[1]), dtype)
    query, attended = np.empty((rows, heads, 1, size), dtype), np.empty((rows, heads * size), dtype)
    key, value = np.empty((rows, key_heads, 1, size), dtype), np.empty((rows, key_heads, 1, size), dtype)
    head_scale, starts = np.empty((rows, heads + key_heads), dtype), np.arange(rows)
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
def part_ways(alive, drawn, homes, lengths, keys, values, moved, places):
    """Where rows that were alike now differ: how many `places` [.] hold what stands before all rows that go on, `alive` [.].

    Rows with the same home have the same tokens so far. Of those that have `drawn` [R] the same one once more one place is
    enough: the first of them keep the home, the others get that of the first row among them, and a copy of what is in the
    cache, `keys` and `values` [layers, P, K, L, S], of `lengths` [P] tokens. That place is free: a home with a row's number is
    opened by the row itself, whose home it then is until the row ends. Written: `moved` [R], the rows' homes from now on.
    """
    count = 0
    for n in range(len(alive)):
        row = alive[n]
        home, with_it, taken = homes[row], -1, False
        for other in alive[:n]:
            if homes[other] == home:
                taken = True
                if drawn[other] == drawn[row]:
                    with_it = other
                    break
        if with_it >= 0:
            moved[row] = moved[with_it]
            continue
        moved[row] = row if taken else home
        if taken:
            lengths[row] = lengths[home]
            for layer in range(len(keys)):
                copy_heads(keys[layer, home], lengths[home], keys[layer, row])
                copy_heads(values[layer, home], lengths[home], values[layer, row])
        places[count] = moved[row]
        count += 1
    return count


@kernel
def continue_rows(
    logits, embeddings, input_norms, qkvs, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm, head,
    eps, factor, cos, sin, homes, lengths, keys, values, temperature, top_p, uniform, ends, stop, tokens, logprobs, counts,
):  # fmt: skip
    """Draws tokens until each row has one of `ends`, or as many as `uniform` [R, T] has numbers, or `stop` [1] is not 0.

    Rows go together as long as they are alike. `homes` [R]: the place in the cache of the row's prompt, which is that of the
    prompt's first row; there are `lengths` [R] tokens, whose `keys` and `values` [layers, R, K, L, S] are there, and the logits
    behind one prompt after another are the first of `logits` [R, V]. `cos`, `sin` [L, S] of all positions. Written: `tokens`
    and `logprobs` [R, T], `counts` [R] of them. `logits`, `homes` and `lengths` are overwritten.
    """
    rows, limit = uniform.shape
    x = np.empty((rows, embeddings.shape[1]), embeddings.dtype)
    turns = np.empty((2, rows, cos.shape[1]), cos.dtype)
    weights = np.empty(logits.shape[1], logits.dtype)
    alive, left = np.arange(rows), rows
    drawn, moved, places, ats = (np.empty(rows, np.int64), np.empty(rows, np.int64), np.unique(homes), np.empty(rows, np.int64))
    lines = np.empty(rows, np.int64)  # of logits, by place
    for n in range(len(places)):
        lines[places[n]] = n
    places = np.concatenate((places, np.empty(rows - len(places), np.int64)))
    for step in range(limit):
        going = 0
        for row in alive[:left]:
            token, logprob = draw(logits[lines[homes[row]]], temperature, top_p, uniform[row, step], weights)
            tokens[row, step], logprobs[row, step], counts[row], drawn[row] = token, logprob, step + 1, token
            ended = False
            for end in ends:
                ended |= token == end
            if not ended:
                alive[going] = row
                going += 1
        left = going
        if left == 0 or step + 1 == limit or stop[0] != 0:
            break
        count = part_ways(alive[:left], drawn, homes, lengths, keys, values, moved, places)
        for row in alive[:left]:
            homes[row] = moved[row]
        for n in range(count):
            lines[places[n]] = n
            ats[n] = lengths[places[n]]
            turns[0, n], turns[1, n] = cos[ats[n]], sin[ats[n]]
        for row in alive[:left]:
            x[lines[homes[row]]] = embeddings[drawn[row]]
        decode(
            x[:count], input_norms, qkvs, qkv_biases, head_norms, outputs, post_norms, gate_ups, downs, last_norm, head,
            eps, factor, turns[0, :count], turns[1, :count], places[:count], ats[:count], keys, values, logits[:count],
        )  # fmt: skip
        for n in range(count):
            lengths[places[n]] += 1
