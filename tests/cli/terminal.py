"""A command on a terminal of a given size: a pseudo-terminal whose screen can be read."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tests.cli.command import MHPO, clean_environment
from trainer.process import end_with_parent

_HOME = b"\x1b[H"  # where a frame begins
_ALTERNATE = (b"\x1b[?1049h", b"\x1b[?1049l")
_LOOKS = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "CI")
_CONTROL = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07")


class Terminal:
    """A running command and what it has written to its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: int, rows: int) -> None:
        self.process = process
        self._rows = rows
        self._terminal = terminal
        self._written = b""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with suppress(OSError):  # the other end is closed
            while piece := os.read(self._terminal, 1 << 16):
                self._written += piece

    def resize(self, columns: int, rows: int) -> None:
        self._rows = rows
        _set_size(self._terminal, columns, rows)
        self.process.send_signal(signal.SIGWINCH)

    def press_ctrl_c(self) -> None:
        os.write(self._terminal, b"\x03")

    def screen(self) -> list[str]:
        """The lines of the last whole frame: one for each row of the terminal."""
        frames = (_plain(frame).split("\r\n") for frame in reversed(self._written.split(_HOME)))
        return next((frame for frame in frames if len(frame) == self._rows), [])

    def on_screen(self, *words: str) -> bool:
        assert self.process.poll() is None, self.text()
        shown = "\n".join(self.screen())
        return all(word in shown for word in words)

    def text(self) -> str:
        """All that was written, without colours and movements."""
        return _plain(self._written)

    def raw(self) -> str:
        return self._written.decode()

    def left_behind(self) -> str:
        """What is on the terminal after the command has given back the screen that it took."""
        self._reader.join(10)
        taken, left = (self._written.count(each) for each in _ALTERNATE)
        assert taken == left == 1
        return _plain(self._written.split(_ALTERNATE[1])[1])


def _plain(written: bytes) -> str:
    return _CONTROL.sub(b"", written).decode(errors="replace")  # the last piece may end within a character


def _set_size(terminal: int, columns: int, rows: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


@contextmanager
def terminal(*arguments: str, columns: int = 100, rows: int = 40, **environment: str) -> Iterator[Terminal]:
    """`mhpo` on a terminal, for the length of a block."""
    ours, its = os.openpty()
    _set_size(ours, columns, rows)
    env = {name: value for name, value in clean_environment().items() if name not in _LOOKS}

    end_with_us = end_with_parent()

    def take_terminal() -> None:
        end_with_us()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    process = subprocess.Popen(
        [MHPO, *arguments],
        stdin=its,
        stdout=its,
        stderr=its,
        env={**env, "TERM": "xterm-256color", **environment},
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(its)
    running = Terminal(process, ours, rows)
    try:
        yield running
    finally:
        process.kill()
        process.wait()
        os.close(ours)
