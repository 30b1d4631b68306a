"""A rank of the learner but the first: does what the leader says that it does. Started by trainer/ranks.py."""

import os
import pickle
import signal
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO


def main() -> None:
    for asking in (signal.SIGINT, signal.SIGTERM):  # sent to the whole group; the leader decides what it means
        signal.signal(asking, signal.SIG_IGN)
    rank, count, port = map(int, sys.argv[1:])
    orders = heard(sys.stdin.buffer)
    setup = next(orders)

    from torch.distributed import TCPStore  # type: ignore[attr-defined]

    from trainer import checkpoint
    from trainer.learner import DriftedError, NotFiniteError
    from trainer.opening import load_policy, new_learner, rank_device, share_threads
    from trainer.policy import load_reference
    from trainer.ranks import HOST, RankGroup, ready

    spec, device = setup.spec, rank_device(setup.spec.resources, rank)
    share_threads(spec.resources, device)
    policy = load_policy(spec, setup.model, device)
    store = TCPStore(HOST, port)
    reference = load_reference(spec, device)
    store.set(ready(rank), "")
    learner = new_learner(spec, policy, reference, RankGroup(rank, count, store, device, setup.seconds))
    if setup.saved is not None:
        checkpoint.restore(setup.saved, policy, learner)
    for method, arguments in orders:
        with suppress(NotFiniteError, DriftedError):  # raised in all ranks alike; the leader says what follows
            getattr(learner, method)(*arguments)


def heard(pipe: BinaryIO) -> Iterator[Any]:
    """What the leader sends, until it ends."""
    while True:
        try:
            yield pickle.load(pipe)  # from our own parent
        except (EOFError, pickle.UnpicklingError):
            return


if __name__ == "__main__":
    main()
    os._exit(0)  # the leader has ended: the others are not waited for
