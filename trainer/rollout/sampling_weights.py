"""The weights that the sampler has, kept while the learner's move on (rollout.staleness)."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from trainer.policy import Policy


class SamplingWeights:
    """A copy of the policy's weights as they were last pushed: one more set of weights in memory."""

    def __init__(self, policy: Policy) -> None:
        self._parameters = list(policy.model.parameters())
        self._kept = [torch.empty_like(parameter) for parameter in self._parameters]

    @torch.no_grad()
    def keep(self) -> None:
        """The present weights."""
        for kept, parameter in zip(self._kept, self._parameters, strict=True):
            kept.copy_(parameter)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside, the policy computes with the kept weights. Nothing is copied: the storages change places and back."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for i, parameter in enumerate(self._parameters):
            parameter.data, self._kept[i] = self._kept[i], parameter.data
