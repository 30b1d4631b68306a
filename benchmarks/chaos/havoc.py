"""Signals to random parts of the service at random moments."""

import signal
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from random import Random

import psutil
from redis import Redis
from redis.exceptions import RedisError

from benchmarks.chaos.parts import WORKERS, Stack, family

PAUSE_SECONDS = (1.0, 6.0)  # between two acts
FREEZE_SECONDS = (0.5, 12.0)  # up to twice the lease
# How often a target is chosen, in parts of the whole. `worker` and its process of the pool are killed apart; `machine` is a
# worker with its trainer; `session` is one of PostgreSQL's processes for one client, whose death restarts them all.
TARGETS = {"trainer": 5, "worker": 3, "pool": 2, "machine": 2, "api": 3, "redis": 2, "postgres": 2, "session": 1}
KILL, FREEZE, FLUSH = "SIGKILL", "SIGSTOP/SIGCONT", "FLUSHALL"


@dataclass(frozen=True, slots=True)
class Frozen:
    """Processes that go on at `until`."""

    target: str
    processes: list[psutil.Process]
    until: float


class Havoc:
    """What is done to a stack, and what was done so far."""

    def __init__(self, stack: Stack, random: Random) -> None:
        self._stack = stack
        self._random = random
        self._frozen: list[Frozen] = []
        self._next = time.monotonic()
        self.done: Counter[tuple[str, str]] = Counter()  # (target, act)

    def tick(self) -> None:
        """Act if it is time; to be called often."""
        now = time.monotonic()
        for frozen in [each for each in self._frozen if each.until <= now]:
            self._thaw(frozen)
        if now >= self._next:
            self._act()
            self._next = time.monotonic() + self._random.uniform(*PAUSE_SECONDS)

    def end(self) -> None:
        """Everything that is frozen goes on."""
        for frozen in list(self._frozen):
            self._thaw(frozen)

    def _act(self) -> None:
        target = self._random.choices(list(TARGETS), list(TARGETS.values()))[0]
        act = self._random.choices((KILL, FREEZE), (3, 2))[0]
        if target == "redis" and self._random.random() < 0.25:
            act = FLUSH
        if target == "session":
            act = KILL
        if any(each.target == target for each in self._frozen):
            return
        if act == FLUSH:
            self._flush()
            return
        processes = self._find(target)
        if not processes:
            return
        self.done[target, act] += 1
        if act == KILL:
            send(signal.SIGKILL, processes[:1] if target in ("api", "postgres", "redis") else processes)
        else:
            send(signal.SIGSTOP, processes)
            self._frozen.append(Frozen(target, processes, time.monotonic() + self._random.uniform(*FREEZE_SECONDS)))

    def _find(self, target: str) -> list[psutil.Process]:
        """The processes that the target names now; none where it is down."""
        if target in ("worker", "pool", "machine", "trainer"):
            return self._of_worker(self._random.choice(WORKERS), target)
        part = self._stack.parts["postgres" if target == "session" else target]
        main = part.process()
        if main is None:
            return []
        everything = family(main)
        if target == "session":
            sessions = [each for each in everything[1:] if " mhpo " in title(each)]
            return self._random.sample(sessions, k=min(1, len(sessions)))
        return everything

    def _of_worker(self, name: str, target: str) -> list[psutil.Process]:
        main = self._stack.parts[name].process()
        everything = [] if main is None else family(main)
        runs = [each for each in everything if str(self._stack.data_dir / "runs") in title(each)]
        trainers = {each for run in runs for each in family(run)}
        own = [each for each in everything if each not in trainers]
        return {"worker": own[:1], "pool": own[1:2], "machine": everything, "trainer": runs[:1]}[target]

    def _thaw(self, frozen: Frozen) -> None:
        self._frozen.remove(frozen)
        send(signal.SIGCONT, frozen.processes)

    def _flush(self) -> None:
        with suppress(RedisError), Redis.from_url(self._stack.redis.url, socket_timeout=1) as client:
            client.flushall()
            self.done["redis", FLUSH] += 1


def send(number: signal.Signals, processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def title(process: psutil.Process) -> str:
    """Its command line; empty once it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
