"""The proof that the rollout engine has the learner's weights: both say the same of fixed token sequences."""

import math
from random import Random

from trainer.learner import NotFiniteError
from trainer.policy import Policy
from trainer.rollout.sampler import Sampler, WeightSyncError

PROBE_SEQUENCES, PROBE_TOKENS = 4, 24

# Largest |difference| of log-probabilities, nats. float32: engine and learner add in another order, measured at
# most 4e-6 on prompts. bfloat16: rounding alone gives up to 0.1 on ordinary tokens; a stale weight gives far more.
PROBE_BOUND = {"float32": 1e-4, "bfloat16": 0.5}


class WeightProbe:
    """Fixed random sequences over the vocabulary, so that every part of the model matters to them."""

    def __init__(self, policy: Policy, dtype: str) -> None:
        random = Random("weight probe")
        vocabulary = len(policy.tokenizer)
        self._sequences = [tuple(random.randrange(vocabulary) for _ in range(PROBE_TOKENS)) for _ in range(PROBE_SEQUENCES)]
        self._policy = policy
        self._bound = PROBE_BOUND[dtype]

    def check(self, sampler: Sampler) -> float:
        """The largest difference, nats; raises WeightSyncError where it is above the bound or the engine's not a number."""
        ours = self.own_logprobs()
        theirs = sampler.token_logprobs(self._sequences)
        gaps = [abs(a - b) for row, other in zip(ours, theirs, strict=True) for a, b in zip(row, other, strict=True)]
        worst = max(gaps) if all(map(math.isfinite, gaps)) else math.inf
        if worst > self._bound:
            raise WeightSyncError(
                f"after the weight push the engine's log-probabilities differ from the learner's by {worst:.3g} nats, "
                f"and at most {self._bound:.3g} is rounding"
            )
        return worst

    def own_logprobs(self) -> list[list[float]]:
        """The learner's; raises NotFiniteError where its weights give none."""
        ours = self._policy.token_logprobs(self._sequences)
        if not all(math.isfinite(value) for row in ours for value in row):
            raise NotFiniteError("the policy's log-probabilities are not finite: an earlier update has broken its weights")
        return ours
