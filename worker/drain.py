"""Tells the pool's children that the worker is going down: Celery tells only its main process.

One byte of shared memory, made before the pool forks: the main process sets it when SIGTERM or SIGQUIT arrives, the
supervisor in the child polls it.
"""

import mmap
from typing import Any

from celery.signals import worker_shutting_down

_flag = mmap.mmap(-1, 1)


def _drain(**_: Any) -> None:
    _flag[0] = 1


worker_shutting_down.connect(_drain)


def draining() -> bool:
    """Whether this worker was told to shut down."""
    return _flag[0] == 1
