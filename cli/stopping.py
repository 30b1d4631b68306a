"""The signals that ask a foreground command to end."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stopped(BaseException):
    """SIGINT, SIGTERM or SIGHUP arrived; a BaseException, so that nothing on the way takes it for a failure."""


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Raise Stopped in the main thread for the signals that ask us to end.

    A second one, while the parts are being stopped, ends the process at once, and the kernel ends the parts with it.
    """

    def on_signal(number: int, _: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {each: signal.signal(each, on_signal) for each in signals}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
