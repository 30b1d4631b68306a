"""Work in as many Python threads as torch has: each takes whole rows through a model, and no product waits for another's part.

A small product gains nothing from a second thread (at 128 rows of 128 numbers two take as long as one), and between products
threads that share one wait for each other hundreds of times a step. Threads of their own meet once.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import TypeVar

import torch

T = TypeVar("T")
_one_at_a_time = Lock()  # torch's number of threads is the process's
_pool: ThreadPoolExecutor | None = None


def in_threads(tasks: Sequence[Callable[[], T]], stop: Callable[[], None] | None = None) -> list[T]:
    """What each task gives, in order; a task a thread, in which torch computes with one thread and makes no graph.

    One task alone runs here, with all of torch's threads, unless there is `stop`: what makes the tasks end soon, called where
    a signal's handler raises while this waits for them. Not for tasks of tasks.
    """
    global _pool  # noqa: PLW0603
    if len(tasks) == 1 and stop is None:
        with torch.no_grad():
            return [tasks[0]()]
    with _one_at_a_time:
        if _pool is None:
            _pool = ThreadPoolExecutor(max(64, os.cpu_count() or 1), thread_name_prefix="rows")
        count = torch.get_num_threads()
        running: list[Future[T]] = []
        try:
            torch.set_num_threads(1)
            running.extend(_pool.submit(_alone, task) for task in tasks)
            return [each.result() for each in running]
        except BaseException:
            if stop is not None:
                stop()
            raise
        finally:
            wait(running)
            torch.set_num_threads(count)


def _alone(task: Callable[[], T]) -> T:
    if torch.get_num_threads() != 1:  # a thread has a number of its own
        torch.set_num_threads(1)
    with torch.no_grad():
        return task()


def _forget() -> None:
    """A forked process has the pool, and none of its threads."""
    global _pool, _one_at_a_time
    _pool, _one_at_a_time = None, Lock()


os.register_at_fork(after_in_child=_forget)
