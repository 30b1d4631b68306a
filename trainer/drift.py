"""The learner's drift from the rollout policy under reuse of a batch, and from where on runs were seen to fall.

In docs/regimes.md, a batch used 16 times, the runs that got there ended at 2 to 58% of their best reward, all of MHPO, SAPO
and CISPO without a limit among them. The gradient norm does not tell: MHPO bounds it. GRPO and DAPO seldom get there and GSPO
never, also where their reward falls (to 46% and more), nor does any run with `max_drift`. With stale rollouts a large ratio is
the lag's, and runs got over it: there it is not looked at.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from statistics import median

from trainer.config import JobSpec

WATCHED = "ratio/log_abs_mean"
STEPS = 4  # looked at together, by their median: a single step means nothing
LIMIT = 0.07  # nats


@dataclass(frozen=True, slots=True)
class Drift:
    """What an event says."""

    message: str
    data: dict[str, float]


class DriftWatch:
    """Sees the metrics of each step in turn."""

    def __init__(self, spec: JobSpec, before: Iterable[Mapping[str, float]]) -> None:
        """`before`: the metrics of the steps that an earlier start of the run has done."""
        self._looks = spec.updates_per_batch > 1 and spec.rollout.staleness == 0
        self._recent: deque[float] = deque(maxlen=STEPS)
        self._drifted = False
        for metrics in before:
            self.see(metrics)

    def see(self, metrics: Mapping[str, float]) -> Drift | None:
        """What to tell where this step is the one that enters the range; None elsewhere, and while the run stays in it."""
        if not self._looks or WATCHED not in metrics:
            return None
        self._recent.append(metrics[WATCHED])
        if len(self._recent) < STEPS:
            return None
        level, was_drifted = median(self._recent), self._drifted
        self._drifted = level >= LIMIT
        if was_drifted or not self._drifted:
            return None
        message = (
            f"the learner drifts from the policy that sampled its batches: mean |log ratio| {level:.3f} over {STEPS} steps. "
            f"Measured runs that came to {LIMIT} by using a batch many times fell to 2 to 58% of their best reward; set "
            "max_drift = 0.02, or lower updates_per_batch or optimizer.lr"
        )
        return Drift(message, {WATCHED: level, "limit": LIMIT})
