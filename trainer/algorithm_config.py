"""The ratio controls that a spec can name, with their published defaults. Torch-free; formulas and papers: trainer/losses/.

r = exp(d) is a token's importance ratio, d = log pi_theta - log pi_old, A its advantage.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from trainer.strict import NonNegative, Positive, Strict


class Mhpo(Strict):
    """MHPO (arXiv 2603.16929): exp(psi - zeta), psi = c tanh(d / c), zeta two Weibull cumulative hazards. Paper's defaults."""

    type: Literal["mhpo"] = "mhpo"
    c: Annotated[Positive, Field(description="Bound of the modulated log-ratio psi")] = 1.5
    k_pos: Annotated[Positive, Field(description="Weibull shape for positive shifts")] = 1.5
    lambda_pos: Annotated[Positive, Field(description="Weibull scale for positive shifts")] = 1.0
    k_neg: Annotated[Positive, Field(description="Weibull shape for negative shifts")] = 2.0
    lambda_neg: Annotated[Positive, Field(description="Weibull scale for negative shifts")] = 0.8
    normalize_on_policy: Annotated[
        bool, Field(description="Divide by exp(-zeta(1)), so that an on-policy gradient is not scaled; not in the paper")
    ] = False
    zero_region: Annotated[
        bool,
        Field(description="No gradient where the ratio is past GRPO's clip in the advantage's direction; not in the paper"),
    ] = False
    zero_region_since: Annotated[
        Literal["rollout", "batch"],
        Field(
            description="The ratio that zero_region looks at: to the weights that sampled, or to those before the batch's "
            "first update, so that the lag of rollout.staleness does not count"
        ),
    ] = "rollout"
    epsilon_low: Annotated[
        float | None, Field(gt=0, lt=1, description="Only with zero_region: it begins below 1 - epsilon_low; null: 0.2")
    ] = None
    epsilon_high: Annotated[
        float | None, Field(gt=0, description="Only with zero_region: it begins above 1 + epsilon_high; null: 0.2")
    ] = None

    @model_validator(mode="after")
    def _bounds_need_the_region(self) -> "Mhpo":
        for name, bound in (("epsilon_low", self.epsilon_low), ("epsilon_high", self.epsilon_high)):
            if bound is not None and not self.zero_region:
                raise ValueError(f"{name} = {bound} does nothing without zero_region = true")
        if self.zero_region_since == "batch" and not self.zero_region:
            raise ValueError("zero_region_since = batch does nothing without zero_region = true")
        return self


class _Clipped(Strict):
    type: str
    epsilon_low: Annotated[float, Field(gt=0, lt=1, description="The ratio is clipped below 1 - epsilon_low")] = 0.2
    epsilon_high: Annotated[Positive, Field(description="The ratio is clipped above 1 + epsilon_high")] = 0.2
    dual_clip: Annotated[
        float | None,
        Field(gt=1, description="A < 0: no gradient above this ratio (verl's clip_ratio_c, 3 there; TRL's delta); null: never"),
    ] = None

    @model_validator(mode="after")
    def _dual_clip_is_above_the_clip(self) -> Self:
        if self.dual_clip is not None and self.dual_clip <= 1 + self.epsilon_high:
            raise ValueError(f"dual_clip = {self.dual_clip} must be above 1 + epsilon_high = {1 + self.epsilon_high}")
        return self


class Grpo(_Clipped):
    """GRPO (arXiv 2402.03300): the clipped surrogate min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A)."""

    type: Literal["grpo"] = "grpo"


class Dapo(_Clipped):
    """DAPO's ratio control (arXiv 2503.14476): GRPO's surrogate with the upper bound raised (clip-higher)."""

    type: Literal["dapo"] = "dapo"
    epsilon_high: Annotated[Positive, Field(description="The ratio is clipped above 1 + epsilon_high")] = 0.28


class DrGrpo(_Clipped):
    """Dr. GRPO's ratio control (arXiv 2503.20783), which is GRPO's: what differs is the aggregation and the advantage."""

    type: Literal["dr_grpo"] = "dr_grpo"


class _SequenceClipped(Strict):
    type: str
    epsilon_low: Annotated[float, Field(gt=0, lt=1, description="The sequence ratio is clipped below 1 - epsilon_low")] = 3e-4
    epsilon_high: Annotated[Positive, Field(description="The sequence ratio is clipped above 1 + epsilon_high")] = 4e-4


class Gspo(_SequenceClipped):
    """GSPO (arXiv 2507.18071): the clipped surrogate of the sequence ratio s = exp(mean of the tokens' log-ratios)."""

    type: Literal["gspo"] = "gspo"


class GspoToken(_SequenceClipped):
    """GSPO-token (arXiv 2507.18071, section 4.3): s in value, each token's own log-probability in gradient."""

    type: Literal["gspo_token"] = "gspo_token"


class Luspo(_SequenceClipped):
    """LUSPO (arXiv 2602.05261): GSPO's loss times the sequence's length. Aggregate it by the sequence mean of token means."""

    type: Literal["luspo"] = "luspo"
    epsilon_low: Annotated[float, Field(gt=0, lt=1, description="The sequence ratio is clipped below 1 - epsilon_low")] = 2e-3
    epsilon_high: Annotated[Positive, Field(description="The sequence ratio is clipped above 1 + epsilon_high")] = 2.5e-3


class Sapo(Strict):
    """SAPO (arXiv 2511.20347): the soft gate (4 / tau) sigmoid(tau (r - 1)) in place of a clip."""

    type: Literal["sapo"] = "sapo"
    tau_pos: Annotated[Positive, Field(description="Temperature for A > 0")] = 1.0
    tau_neg: Annotated[Positive, Field(description="Temperature for A <= 0; larger closes the gate sooner")] = 1.05


class Cispo(Strict):
    """CISPO (arXiv 2506.13585): -A log pi, weighted by the clipped ratio. The cap is ScaleRL's (arXiv 2510.13786)."""

    type: Literal["cispo"] = "cispo"
    ratio_min: Annotated[float, Field(ge=0, le=1, description="Lowest weight: a ratio, not 1 - epsilon; 0: no floor")] = 0.0
    ratio_max: Annotated[float, Field(ge=1, description="Highest weight: a ratio, not 1 + epsilon")] = 5.0


class Gmpo(Strict):
    """GMPO (arXiv 2507.20673): the geometric mean of the sequence's ratios, each clipped in log space."""

    type: Literal["gmpo"] = "gmpo"
    epsilon_low: Annotated[Positive, Field(description="Log-ratios are clipped below -epsilon_low where A < 0")] = 0.4
    epsilon_high: Annotated[Positive, Field(description="Log-ratios are clipped above epsilon_high where A > 0")] = 0.4


class Dppo(Strict):
    """DPPO (arXiv 2602.04879), binary: no gradient where a token's probability has moved too far in A's direction."""

    type: Literal["dppo"] = "dppo"
    divergence: Annotated[
        Literal["tv", "kl"], Field(description="What is bounded: p - p_old, or the KL of Bernoulli p_old from p")
    ] = "tv"
    delta_low: Annotated[float | None, Field(gt=0, description="Bound where A < 0; null: 0.15 for tv, 0.05 for kl")] = None
    delta_high: Annotated[float | None, Field(gt=0, description="Bound where A > 0; null: 0.15 for tv, 0.05 for kl")] = None
    ratio_max: Annotated[float, Field(ge=1, description="The ratio, a constant weight, is cut here")] = 20.0


class Vespo(Strict):
    """VESPO (arXiv 2602.10693): -A log pi, weighted by w^k exp(lambda (1 - w)) of the whole sequence's ratio w."""

    type: Literal["vespo"] = "vespo"
    k_pos: Annotated[NonNegative, Field(description="Power of w for A >= 0")] = 2.0
    lambda_pos: Annotated[Positive, Field(description="Decay in w for A >= 0")] = 3.0
    k_neg: Annotated[NonNegative, Field(description="Power of w for A < 0")] = 3.0
    lambda_neg: Annotated[Positive, Field(description="Decay in w for A < 0")] = 2.0


class Reinforce(Strict):
    """REINFORCE: -A log pi, no ratio. Right for one update a batch; nothing holds it back in later ones."""

    type: Literal["reinforce"] = "reinforce"


Algorithm = Annotated[
    Mhpo | Grpo | Dapo | DrGrpo | Gspo | GspoToken | Luspo | Sapo | Cispo | Gmpo | Dppo | Vespo | Reinforce,
    Field(discriminator="type"),
]
