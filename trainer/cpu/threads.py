"""Work in as many Python threads as torch has: each takes whole rows through a model, and no product waits for another's part.

A small product gains nothing from a second thread (at 128 rows of 128 numbers two take as long as one), and between products
threads that share one wait for each other hundreds of times a step. Threads of their own meet once.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")
_pool: ThreadPoolExecutor | None = None


def in_threads(tasks: Sequence[Callable[[], T]]) -> list[T]:
    """What each task gives, in order; a task a thread, in which torch computes with one thread and makes no graph."""
    global _pool  # noqa: PLW0603
    if len(tasks) == 1:
        with torch.no_grad():
            return [tasks[0]()]
    if _pool is None:
        _pool = ThreadPoolExecutor(thread_name_prefix="rows", initializer=torch.set_num_threads, initargs=(1,))
    count = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        waiting = [_pool.submit(torch.no_grad()(task)) for task in tasks[1:]]
        with torch.no_grad():
            first = tasks[0]()
        return [first, *(each.result() for each in waiting)]
    finally:
        torch.set_num_threads(count)
