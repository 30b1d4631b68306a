"""What an optimizer step minimises, token by token. Axes: B sequence, T completion token.

    loss of a token = correction weight x ratio control's loss + kl coefficient x estimate - entropy coefficient x entropy

The correction weight is a constant and does not touch the KL and entropy terms.
"""

from dataclasses import dataclass, field

from torch import Tensor

from trainer.algorithm_config import Algorithm
from trainer.batch import Batch
from trainer.config import JobSpec
from trainer.correction import CorrectionWeights, correction_weights
from trainer.kl import kl_estimate
from trainer.losses.ratio_control import token_loss
from trainer.objective_config import Correction, Kl, KlInLoss, Loss, NoKl, TruncateCorrection
from trainer.policy import TokenDistribution


@dataclass(frozen=True, slots=True)
class Objective:
    """The terms of the loss and how it is aggregated."""

    algorithm: Algorithm
    loss: Loss = field(default_factory=Loss)
    correction: Correction = field(default_factory=TruncateCorrection)
    kl: Kl = field(default_factory=NoKl)
    sum_constant: int = 1  # what aggregation sequence_sum divides by, besides the sequences

    @classmethod
    def of(cls, spec: JobSpec) -> "Objective":
        """A job's."""
        constant = spec.rollout.max_new_tokens if spec.loss.constant is None else spec.loss.constant
        return cls(spec.algorithm, spec.loss, spec.correction, spec.kl, constant)

    @property
    def needs_reference(self) -> bool:
        """True where the loss needs the reference's log-probabilities."""
        return isinstance(self.kl, KlInLoss)

    @property
    def has_other_gradients(self) -> bool:
        """True where a completion of no advantage has a gradient all the same, of a KL or entropy term."""
        return isinstance(self.kl, KlInLoss) or self.loss.entropy_coefficient > 0


@dataclass(frozen=True, slots=True)
class TokenTerms:
    """The objective at each token of a batch, before mask and aggregation; meaningless where masked."""

    loss_BT: Tensor  # all terms; differentiable
    telemetry_BT: dict[str, Tensor]  # of the ratio control
    correction: CorrectionWeights
    kl_BT: Tensor | None  # k3 from the reference, detached; None where no reference is needed


def token_terms(
    objective: Objective,
    batch: Batch,
    now: TokenDistribution,
    old_logprobs_BT: Tensor,
    start_logprobs_BT: Tensor,
    ref_logprobs_BT: Tensor | None,
) -> TokenTerms:
    """All terms. `start_logprobs_BT`: by the weights before the batch's first update; `ref_logprobs_BT` is needed where
    `objective.needs_reference`."""
    ratio = token_loss(
        objective.algorithm, now.logprobs_BT, old_logprobs_BT, batch.advantages_B, batch.mask_BT, start_logprobs_BT
    )
    weights = correction_weights(old_logprobs_BT, batch.sampler_logprobs_BT, batch.mask_BT, objective.correction)
    loss_BT, kl_BT = ratio.loss_BT * weights.used_BT, None
    if isinstance(objective.kl, KlInLoss):
        if ref_logprobs_BT is None:
            raise ValueError("a KL term in the loss needs the reference's log-probabilities")
        estimate_BT = kl_estimate(objective.kl.estimator, now.logprobs_BT, ref_logprobs_BT)
        loss_BT = loss_BT + objective.kl.coefficient * estimate_BT
        kl_BT = kl_estimate("k3", now.logprobs_BT.detach(), ref_logprobs_BT)
    if objective.loss.entropy_coefficient > 0:
        loss_BT = loss_BT - objective.loss.entropy_coefficient * now.entropy_BT
    return TokenTerms(loss_BT, ratio.telemetry_BT, weights, kl_BT)
