"""Children that cannot outlive the process that started them."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def end_with_parent(death_signal: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """For `preexec_fn`: the kernel sends the child `death_signal` when the thread that forked it ends. Only Linux does."""
    parent = os.getpid()

    def ask_kernel() -> None:
        if sys.platform != "linux":
            return
        if _libc.prctl(_PR_SET_PDEATHSIG, int(death_signal)) != 0:
            raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
        if os.getppid() != parent:  # it died before the line above, and no signal will come
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_kernel
