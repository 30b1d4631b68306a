"""Rollout batches between sampling and training (rollout.staleness): at most `staleness` wait while one is trained on."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from trainer.types import Completion, Problem


@dataclass(frozen=True, slots=True)
class Order:
    """A batch asked for: step 9 trains on it, and the weights that sample it had seen 6 steps of 2 updates each.

    >>> Order(step=9, sampled_at=6, version=12, problems=())
    """

    step: int
    sampled_at: int  # steps finished when it was asked for
    version: int  # optimizer steps taken by then
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class SampledBatch:
    """An order and its completions, a tuple for each problem."""

    order: Order
    completions: tuple[tuple[Completion, ...], ...]


class RolloutQueue:
    """Batches in the order of their steps, and the one order that the sampler is working on."""

    def __init__(self, staleness: int, last_step: int, batches: Iterable[SampledBatch] = ()) -> None:
        self._staleness = staleness
        self._last_step = last_step
        self._batches = deque(batches)
        self._pending: Order | None = None

    @property
    def batches(self) -> Sequence[SampledBatch]:
        """Those that are sampled and not yet trained on."""
        return tuple(self._batches)

    @property
    def pending(self) -> Order | None:
        """What the sampler is working on."""
        return self._pending

    def due(self, step: int) -> Iterator[int]:
        """The steps whose batches the weights of step - 1 are to sample: usually step + staleness, at first all up to it."""
        first = self._batches[-1].order.step + 1 if self._batches else step
        return iter(range(first, min(step + self._staleness, self._last_step) + 1))

    def problems_waiting(self) -> int:
        """Problems of the batches that are sampled and not yet trained on."""
        return sum(len(batch.order.problems) for batch in self._batches)

    def ask(self, order: Order) -> None:
        """Remembers what the sampler was asked for."""
        assert self._pending is None
        assert len(self._batches) <= self._staleness
        self._pending = order

    def fill(self, completions: Iterable[tuple[Completion, ...]]) -> None:
        """The pending order's completions."""
        assert self._pending is not None
        self._batches.append(SampledBatch(self._pending, tuple(completions)))
        self._pending = None

    def of_step(self, step: int) -> SampledBatch:
        """The batch that `step` trains on; it stays until `remove`, so that a step that is broken off loses nothing."""
        batch = self._batches[0]
        assert batch.order.step == step
        assert 0 <= step - 1 - batch.order.sampled_at <= self._staleness
        return batch

    def remove(self, step: int) -> None:
        """The batch of a finished step."""
        assert self._batches[0].order.step == step
        self._batches.popleft()
