"""Processes that share the work of a run: all have the weights, each takes a part of every optimizer step's micro-batches.

The trainer's own process is rank 0 and leads. It tells the others what it is about to do; they do the same, meet it in the
collectives below, and so come to the same weights, which they compare after each step. They end when their leader does.
"""

import os
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import torch
from torch import Tensor, distributed, nn
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined]

from trainer.config import JobSpec, Model
from trainer.process import end_with_parent

T = TypeVar("T")
HOST = "127.0.0.1"
START_SECONDS = 3600.0  # until every rank has loaded the model; one that dies is seen at once
SILENCE_SECONDS = 3600.0  # that a rank may keep the others waiting; the slowest one's rollouts are among it
BUCKET = 2**24  # elements of gradient that are added up at once
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
_LOOK_SECONDS = 0.05
_ENDING_SECONDS = 10.0  # that the kernel may take to end a process whose connections it has closed
_ORDER = b"."  # on a rank's pipe: an order follows, as a broadcast
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes


class RankError(RuntimeError):
    """A rank has ended, does not answer, or has other weights."""


class Ranks:
    """One process alone, which is all of them: what it says is what all have said."""

    rank = 0
    count = 1

    def order(self, method: str, *arguments: Any, **named: Any) -> None:
        """The leader's word to the others that it is about to do this; each does the same (trainer/rank_process.py)."""

    def all_of(self, mine: T) -> list[T]:
        """What each rank has given, in their order, in each of them."""
        return [mine]

    def to_leader(self, mine: T) -> list[T]:
        """The same in the leader; empty in the others."""
        return [mine]

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes the sum of all ranks'; one that only some have counts as zeros in the others."""

    def check_same(self, parameters: Sequence[nn.Parameter]) -> None:
        """Raises RankError where the weights are not those of the leader."""

    def close(self) -> None:
        """Ends the other ranks."""


class RankGroup(Ranks):
    """One of several processes. Every method but `order`, `orders` and `close` is to be called in all of them."""

    def __init__(self, rank: int, count: int, store: Store, device: torch.device) -> None:
        """Comes back when all have come."""
        self.rank, self.count, self._device = rank, count, device
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(
            backend, store=store, rank=rank, world_size=count, timeout=timedelta(seconds=SILENCE_SECONDS)
        )

    def all_of(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.count
        distributed.all_gather_object(found, mine)
        return found

    def to_leader(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.count if self.rank == 0 else []
        distributed.gather_object(mine, found or None)
        return found

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        has_gradient = [any(ranks) for ranks in zip(*self.all_of([p.grad is not None for p in parameters]), strict=True)]
        for parameter, has in zip(parameters, has_gradient, strict=True):
            if has and parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        for gradients in _buckets([parameter.grad for parameter in parameters if parameter.grad is not None]):
            if len(gradients) == 1 and gradients[0].is_contiguous():
                self._sum(gradients[0])
                continue
            joined = torch.cat([gradient.flatten() for gradient in gradients])
            self._sum(joined)
            totals = torch.split(joined, [gradient.numel() for gradient in gradients])
            for gradient, total in zip(gradients, totals, strict=True):
                gradient.copy_(total.view_as(gradient))

    def check_same(self, parameters: Sequence[nn.Parameter]) -> None:
        """By the sum of each weight's bits, read as integers: one that differs changes it."""
        bits = [parameter.detach().view(_BITS[parameter.element_size()]) for parameter in parameters]
        sums = torch.stack([one.sum(dtype=torch.int64) for one in bits]).tolist()
        for rank, others in enumerate(self.all_of(sums)):
            if others != sums:
                raise RankError(f"after the optimizer step rank {rank} has other weights than rank {self.rank}")

    def orders(self, pipe: BinaryIO) -> Iterator[tuple[str, tuple[Any, ...], dict[str, Any]]]:
        """What the leader says that it does, until it ends."""
        while pipe.read(1) == _ORDER:
            told: list[Any] = [None]
            distributed.broadcast_object_list(told)
            yield told[0]

    def _sum(self, values: Tensor) -> None:
        """Replaces `values` by the sum of all ranks', and returns when that is done."""
        work = distributed.all_reduce(values, async_op=True)
        if self._device.type == "cuda":  # NCCL would wait where nothing can be asked meanwhile
            deadline = time.monotonic() + SILENCE_SECONDS
            while not work.is_completed():
                self._check_others()
                if time.monotonic() > deadline:
                    raise RankError(f"the gradients of all ranks have not come together within {SILENCE_SECONDS:.0f} s")
                time.sleep(0.001)
        work.wait()

    def _check_others(self) -> None:
        """Raises RankError where another rank is known to have ended."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a rank needs to be like its leader."""

    spec: JobSpec
    model: Model  # the spec's, or that of the checkpoint
    saved: Path | None  # the checkpoint


class Leader(RankGroup):
    """Rank 0, which starts the others."""

    def __init__(self, setup: Setup, device: torch.device, module: str = "trainer.rank_process") -> None:
        """Raises RankError where one does not come."""
        count = setup.spec.resources.learners
        os.environ |= LOOPBACK
        listening = socket.create_server((HOST, 0))  # the store's own socket would listen to other machines too
        port = listening.getsockname()[1]
        store = TCPStore(HOST, port, is_master=True, wait_for_workers=False, master_listen_fd=listening.detach())
        self._processes: list[subprocess.Popen[bytes]] = []
        try:
            for rank in range(1, count):
                self._processes.append(_start(module, rank, count, port))
            self._write(pickle.dumps(setup))
            self._wait_for(store)
            super().__init__(0, count, store, device)
        except BaseException:
            self._kill()
            raise

    def order(self, method: str, *arguments: Any, **named: Any) -> None:
        self._write(_ORDER)
        with self._blamed():
            distributed.broadcast_object_list([(method, arguments, named)])

    def all_of(self, mine: T) -> list[T]:
        with self._blamed():
            return super().all_of(mine)

    def to_leader(self, mine: T) -> list[T]:
        with self._blamed():
            return super().to_leader(mine)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        with self._blamed():
            super().add_up(parameters)

    def close(self) -> None:
        self._kill()
        if self._device.type == "cpu":  # NCCL's could wait for the ranks that are gone; it ends with the process
            distributed.destroy_process_group()

    def _write(self, text: bytes) -> None:
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(text)
                process.stdin.flush()
            except BrokenPipeError as error:
                raise RankError(self._why("a rank does not listen")) from error

    def _wait_for(self, store: Store) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not store.check([ready(rank) for rank in range(1, len(self._processes) + 1)]):
            self._check_others()
            if time.monotonic() > deadline:
                raise RankError(f"the ranks have not loaded the model within {START_SECONDS:.0f} s")
            time.sleep(_LOOK_SECONDS)

    @contextmanager
    def _blamed(self) -> Iterator[None]:
        """What a collective fails with when another rank ends says nothing of that."""
        try:
            yield
        except (RankError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            raise RankError(self._why(f"the ranks do not answer: {error}")) from error

    def _check_others(self) -> None:
        if (ended := self._ended()) is not None:
            raise RankError(ended)

    def _why(self, otherwise: str) -> str:
        """Which rank has ended. A connection is seen to end a moment before its process is."""
        deadline = time.monotonic() + _ENDING_SECONDS
        while (ended := self._ended()) is None and time.monotonic() < deadline:
            time.sleep(_LOOK_SECONDS)
        return ended or otherwise

    def _ended(self) -> str | None:
        for rank, process in enumerate(self._processes, start=1):
            if (code := process.poll()) is not None:
                return f"rank {rank} of the learner has ended with exit code {code}"
        return None

    def _kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            with suppress(OSError):
                if process.stdin is not None:
                    process.stdin.close()


def open_ranks(setup: Setup, device: torch.device) -> Ranks:
    """All that the spec asks for, with the model loaded."""
    return Leader(setup, device) if setup.spec.resources.learners > 1 else Ranks()


def ready(rank: int) -> str:
    """The key by which a rank says in the store that it has loaded the model."""
    return f"ready/{rank}"


def _start(module: str, rank: int, count: int, port: int) -> "subprocess.Popen[bytes]":
    argv = [sys.executable, "-m", module, str(rank), str(count), str(port)]
    return subprocess.Popen(argv, stdin=subprocess.PIPE, preexec_fn=end_with_parent())


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of gradients of one dtype, of at most BUCKET elements together where one alone has no more."""
    bucket: list[Tensor] = []
    for gradient in gradients:
        elements = sum(one.numel() for one in bucket) + gradient.numel()
        if bucket and (elements > BUCKET or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
