"""A rank of the learner but the first: does what the leader says that it does. Started by trainer/ranks.py."""

import os
import pickle
import signal
import sys
from collections.abc import Callable
from contextlib import suppress


def main() -> None:
    for asking in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the leader decides what it means
        signal.signal(asking, signal.SIG_IGN)
    rank, count, port = map(int, sys.argv[1:])
    pipe = sys.stdin.buffer
    setup = pickle.load(pipe)  # from our own parent

    # Seconds of imports: with the signals ignored.
    import torch
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from trainer import checkpoint
    from trainer.learner import DriftedError, NotFiniteError
    from trainer.objective import Objective
    from trainer.opening import load_policy, new_learner, rank_device, share_threads
    from trainer.policy import load_model, load_reference
    from trainer.ranks import HOST, RankGroup, ready
    from trainer.rollout.open import shares_rollouts
    from trainer.rollout.shared_sampler import SharedSampler

    spec, device = setup.spec, rank_device(setup.spec.resources, rank)
    share_threads(spec.resources, device)
    torch.manual_seed(spec.seed)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    policy = load_policy(spec, setup.model, device)
    reference = load_reference(spec, device) if Objective.of(spec).needs_reference else None
    model = load_model(setup.model, device) if shares_rollouts(spec.rollout.engine, spec.resources, device) else None
    store = TCPStore(HOST, port)
    store.set(ready(rank), "")
    group = RankGroup(rank, count, store, device)
    learner = new_learner(spec, policy, reference, group)
    does: dict[str, Callable[..., object]] = {"update": learner.update, "logprobs": learner.logprobs}
    if model is not None:
        sampler = SharedSampler(model, policy.tokenizer, group)
        does |= {
            "generate": sampler.generate,
            "token_logprobs": sampler.token_logprobs,
            "push_weights": lambda version: sampler.push_weights(policy.weights(), version),
        }
    if setup.saved is not None:
        checkpoint.restore(setup.saved, policy, learner)
    for method, arguments, named in group.orders(pipe):
        with suppress(NotFiniteError, DriftedError):  # raised in all ranks alike; the leader says what follows
            does[method](*arguments, **named)


if __name__ == "__main__":
    main()
    os._exit(0)  # the leader has ended: the others are not waited for
