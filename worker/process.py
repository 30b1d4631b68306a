"""A child process that cannot outlive its worker, and that is ended together with everything it started."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import psutil

from trainer.process import end_with_parent
from worker.devices import SLOTS

# Environment variables: descendants inherit them, whatever session or parent they end up with.
_MARK = "MHPO_CHILD"  # what is run
_OWN = "MHPO_CHILD_START"  # which start of it: a worker that wakes up after its lease ends its own child, not its successor's
_KILL_SECONDS = 60.0  # a process in the kernel's hands (a GPU driver call) can take long to die


class Child:
    """A process at the head of its own session and group; SIGKILL reaches it when the thread that started it ends.

    It stays a zombie until `reap`, so its id, which is also its group's, cannot come to mean another process before
    the last of its descendants is gone.
    """

    def __init__(self, process: subprocess.Popen[bytes], own: str) -> None:
        self._process = process
        self._own = own

    @classmethod
    def start(cls, mark: str, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> "Child":
        """Run `command` with `environment`, its standard output and error appended to `log`.

        What carries `mark` on this machine is killed first: processes of an earlier child whose worker hangs. So is what was
        given a GPU that `environment` gives this child: its lease is over.
        The calling thread must last as long as the child may: its end is what the child dies with.
        """
        slots = _slots(environment)
        _kill(lambda: [each for each in psutil.process_iter() if _lives(each) and _stands_in_the_way(each, mark, slots)])
        own = uuid4().hex
        with log.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment, _MARK: mark, _OWN: own},
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        return cls(process, own)

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> bool:
        """Whether the process itself has ended; it is not reaped."""
        if self._process.returncode is not None:
            return True
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def terminate(self) -> None:
        """SIGTERM to the process itself: it needs what it started (a rollout engine, graders) to finish its step."""
        if self._process.returncode is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to everything that is left, and wait until nothing is; raises TimeoutError that names what stays."""
        _kill(self.members)

    def reap(self) -> int:
        """Kill what is left, and return the exit code: negative where a signal ended the process."""
        if self._process.returncode is None:
            self.kill()
        return self._process.wait()

    def members(self) -> list[psutil.Process]:
        """The live processes that are in the group, below the child in the tree, or were started by it."""
        below: set[psutil.Process] = set()
        with suppress(psutil.NoSuchProcess):
            below.update(psutil.Process(self.pid).children(recursive=True))
        return [process for process in psutil.process_iter() if _lives(process) and self._owns(process, below)]

    def _owns(self, process: psutil.Process, below: set[psutil.Process]) -> bool:
        return process in below or _group(process) == self.pid or _has(process, _OWN, self._own)


def _kill(find: Callable[[], list[psutil.Process]]) -> None:
    deadline = time.monotonic() + _KILL_SECONDS
    while left := find():
        if time.monotonic() > deadline:
            raise TimeoutError(f"still alive {_KILL_SECONDS:.0f} s after SIGKILL: {', '.join(map(str, left))}")
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.01)


def _group(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return None


def _has(process: psutil.Process, variable: str, value: str) -> bool:
    try:
        return bool(process.environ().get(variable) == value)
    except psutil.Error:  # it has ended, or belongs to another user
        return False


def _stands_in_the_way(process: psutil.Process, mark: str, slots: set[str]) -> bool:
    try:
        environment = process.environ()
    except psutil.Error:  # it has ended, or belongs to another user
        return False
    return environment.get(_MARK) == mark or bool(slots & _slots(environment))


def _slots(environment: Mapping[str, str]) -> set[str]:
    return set(environment.get(SLOTS, "").splitlines())


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False
