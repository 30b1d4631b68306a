"""Processes for verdicts that may hang: each has a wall limit of its own, and a process that passes it is killed and replaced.

Neither a signal nor a thread can end a regular expression or a big-integer power in mid-computation; SIGKILL can.
The processes are fresh interpreters (no fork of a process with torch's threads), import only what grading needs, and die
with the thread that started them.
"""

import json
import os
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from selectors import EVENT_READ, DefaultSelector
from time import monotonic
from types import TracebackType
from typing import Self

from trainer.process import end_with_parent

START_SECONDS = 120.0  # imports take 0.4 s on a quiet machine
LARGEST_POOL = 8


@dataclass(frozen=True, slots=True)
class Call:
    """A verdict still to be had: `function`, as "module:name", of `arguments`, within `timeout` seconds.

    >>> Call("trainer.rewards.equality:equal", ("1/2", "0.50"), timeout=5.0)
    """

    function: str
    arguments: tuple[str, ...]
    timeout: float
    sandboxed: bool = False  # code of the user's, for a pool of confined processes


@dataclass(frozen=True, slots=True)
class Failure:
    """Why there is no verdict."""

    reason: str


Outcome = float | Failure


class PoolError(RuntimeError):
    """A grading process does not start: nothing can be graded."""


class Pool:
    """At most `size` processes, started when there is work; the modules `preload` are imported before any clock runs."""

    def __init__(self, preload: Sequence[str] = (), size: int | None = None, *, sandboxed: bool = False) -> None:
        self._preload = tuple(preload)
        self._sandboxed = sandboxed
        self._size = size or min(LARGEST_POOL, len(os.sched_getaffinity(0)))
        self._processes: list[_Process] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """The outcome of each call, in order. Raises PoolError where a process cannot start."""
        outcomes: dict[int, Outcome] = {}
        waiting = deque(range(len(calls)))
        try:
            while len(outcomes) < len(calls):
                self._hand_out(waiting, calls)
                for process, spoke in self._wait():
                    if process.task is None:
                        self._hear_start(process, spoke)
                    else:
                        self._hear_outcome(process, spoke, outcomes)
        finally:
            for process in [one for one in self._processes if one.task is not None]:
                self._end(process)  # left in the middle: its late answer must not be taken for another's
        return [outcomes[number] for number in range(len(calls))]

    def process_ids(self) -> list[int]:
        """Of the processes that live now."""
        return [process.popen.pid for process in self._processes]

    def close(self) -> None:
        """Kills all processes."""
        for process in list(self._processes):
            self._end(process)

    def _hand_out(self, waiting: "deque[int]", calls: Sequence[Call]) -> None:
        for process in [one for one in self._processes if one.ready and one.task is None and one.popen.poll() is not None]:
            self._end(process)  # died while idle
        while len(self._processes) < self._size and sum(one.task is None for one in self._processes) < len(waiting):
            self._processes.append(_Process(*(_confined() if self._sandboxed else _ordinary(self._preload))))
        for process in [one for one in self._processes if one.ready and one.task is None]:
            if waiting and process.send(calls[waiting[0]]):
                process.task = waiting.popleft()

    def _wait(self) -> "list[tuple[_Process, bool]]":
        """Waits for processes that speak or die (True), or pass their limit in silence (False)."""
        watched = [one for one in self._processes if one.task is not None or not one.ready]
        with DefaultSelector() as selector:
            for process in watched:
                selector.register(process.replies, EVENT_READ, process)
            nearest = min((one.deadline for one in watched), default=monotonic())
            heard = [key.data for key, _ in selector.select(max(0.0, nearest - monotonic()))]
        late = [one for one in watched if one not in heard and one.deadline <= monotonic()]
        return [(one, True) for one in heard] + [(one, False) for one in late]

    def _hear_start(self, process: "_Process", spoke: bool) -> None:
        if spoke and (line := process.read_line()) is None:
            return
        reply = {"error": "it takes too long"} if not spoke else json.loads(line) if line else {"error": "it died"}
        if "error" in reply:
            self._end(process)
            raise PoolError(f"a grading process does not start: {reply['error']}")
        process.ready = True

    def _hear_outcome(self, process: "_Process", spoke: bool, outcomes: dict[int, Outcome]) -> None:
        if spoke and (line := process.read_line()) is None:
            return
        assert process.task is not None
        if spoke and line and (outcome := _outcome(line)) is not None:
            outcomes[process.task] = outcome
            process.task = None
        else:
            self._end(process)
            died = f"the grading process died ({process.popen.returncode})"
            outcomes[process.task] = Failure(died if spoke else "timeout")

    def _end(self, process: "_Process") -> None:
        process.kill()
        self._processes.remove(process)


class _Process:
    """One interpreter running a grading program; a line of JSON each way."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            bufsize=0,
            preexec_fn=end_with_parent(),
        )
        assert self.popen.stdin is not None
        assert self.popen.stdout is not None
        self._requests = self.popen.stdin
        self.replies = self.popen.stdout
        self.ready = False
        self.task: int | None = None
        self.deadline = monotonic() + START_SECONDS
        self._buffer = b""

    def send(self, call: Call) -> bool:
        """False where the process is gone."""
        request = json.dumps([call.function, call.arguments]).encode() + b"\n"
        try:
            while request:
                request = request[self._requests.write(request) :]
        except BrokenPipeError:
            return False
        self.deadline = monotonic() + call.timeout
        return True

    def read_line(self) -> bytes | None:
        """A whole line; b"" where the process has closed its end; None where the line is still on its way."""
        part = os.read(self.replies.fileno(), 65536)
        self._buffer += part
        if not part or not self._buffer.endswith(b"\n"):
            return None if part else b""
        line, self._buffer = self._buffer, b""
        return line

    def kill(self) -> None:
        self.popen.kill()
        self.popen.wait()
        self._requests.close()
        self.replies.close()


def _ordinary(preload: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a process that runs our own graders."""
    # PYTHONHASHSEED: sympy orders some terms by hash, and a verdict must not depend on the process that gave it.
    path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "0"}
    return [sys.executable, "-P", "-m", "trainer.rewards.pool_process", *preload], environment


def _confined() -> tuple[list[str], dict[str, str]]:
    """Of a process that runs users' code: isolated from paths and settings, with an empty environment."""
    return [sys.executable, "-I", "-S", str(Path(__file__).with_name("sandbox_process.py"))], {}


def _outcome(line: bytes) -> Outcome | None:
    """None for what is no reply: a user's code may write anything."""
    try:
        reply = json.loads(line)
        return Failure(str(reply["error"])) if "error" in reply else float(reply["value"])
    except (ValueError, TypeError, KeyError):
        return None
