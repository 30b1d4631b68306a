"""The parts of the spec that, beside the ratio control, decide what an optimizer step minimises. Torch-free."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from trainer.strict import Count, NonNegative, Positive, Strict


class Loss(Strict):
    """How per-token losses become one number, whatever the ratio control. Counts are those of the whole optimizer step."""

    aggregation: Annotated[
        Literal["sequence_mean_token_mean", "token_mean", "sequence_sum"],
        Field(
            description="Mean over completions of each one's mean over its tokens (the MHPO paper's, GRPO's); mean over all "
            "tokens (DAPO's); sum over tokens over (completions x constant) (Dr. GRPO's)"
        ),
    ] = "sequence_mean_token_mean"
    constant: Annotated[Count | None, Field(description="Of sequence_sum; null: rollout.max_new_tokens")] = None
    entropy_coefficient: Annotated[
        NonNegative,
        Field(description="Times the entropy, subtracted from each token's loss; at 0 no gradient of it is computed"),
    ] = 0.0

    @model_validator(mode="after")
    def _constant_has_a_use(self) -> "Loss":
        if self.constant is not None and self.aggregation != "sequence_sum":
            raise ValueError(f"constant belongs to aggregation sequence_sum, not {self.aggregation}")
        return self


class KeepZeroVariance(Strict):
    """They stay: no policy gradient, but they count in the loss's means, and the KL and entropy terms apply to them."""

    type: Literal["keep"] = "keep"


class SkipZeroVariance(Strict):
    """They are left out of the loss and of the counts that it is divided by."""

    type: Literal["skip"] = "skip"


class ResampleZeroVariance(Strict):
    """As skip, and other problems are drawn in their place (DAPO's dynamic sampling, arXiv 2503.14476, section 3.2)."""

    type: Literal["resample"] = "resample"
    max_extra_prompts: Annotated[
        Count, Field(description="Problems drawn beyond prompts_per_step in one step, at most; then the step goes on with less")
    ] = 32


ZeroVariance = Annotated[KeepZeroVariance | SkipZeroVariance | ResampleZeroVariance, Field(discriminator="type")]


class Advantages(Strict):
    """What a completion's reward is compared with. Completions whose grading failed count nowhere."""

    type: Annotated[
        Literal["group_std", "group_mean", "leave_one_out", "batch_std"],
        Field(
            description="(reward - group mean) / (group std + 1e-4), std by n - 1 (GRPO's); reward - group mean (Dr. GRPO's); "
            "reward - mean of the group's others (RLOO's); (reward - group mean) / (std of the step's rewards + 1e-4)"
        ),
    ] = "group_std"
    zero_variance: Annotated[
        ZeroVariance, Field(description="What is done with groups whose graders' rewards are all equal")
    ] = KeepZeroVariance()


class KeepOverlong(Strict):
    """Completions cut at the limit are trained on as any other."""

    type: Literal["keep"] = "keep"


class MaskOverlong(Strict):
    """Completions cut at the limit are left out of the loss and of its counts; their rewards stay in the group's mean."""

    type: Literal["mask"] = "mask"


class SoftPunishment(Strict):
    """The reward falls linearly by up to `penalty` over the last `buffer` tokens before the limit (arXiv 2503.14476, eq. 13)"""

    type: Literal["soft_punishment"] = "soft_punishment"
    buffer: Annotated[Count, Field(description="Tokens before rollout.max_new_tokens in which the punishment grows")]
    penalty: Annotated[Positive, Field(description="Subtracted from the reward at rollout.max_new_tokens")] = 1.0


Overlong = Annotated[KeepOverlong | MaskOverlong | SoftPunishment, Field(discriminator="type")]

KlEstimator = Literal["k1", "k2", "k3"]


class NoKl(Strict):
    """No reference model is loaded."""

    type: Literal["none"] = "none"


class KlInLoss(Strict):
    """coefficient x KL(policy, base model) is added to each token's loss; the estimate is differentiated as it stands."""

    type: Literal["loss"] = "loss"
    coefficient: Annotated[Positive, Field(description="Times the estimate at each token")]
    estimator: Annotated[KlEstimator, Field(description="With x = log pi_theta - log pi_ref: x; x^2 / 2; exp(-x) - 1 + x")] = (
        "k3"
    )


class KlInReward(Strict):
    """coefficient x KL(sampler, base model), summed over a completion's tokens, is subtracted from its reward."""

    type: Literal["reward"] = "reward"
    coefficient: Annotated[Positive, Field(description="Times the estimate, summed over tokens")]
    estimator: Annotated[
        KlEstimator, Field(description="With x = log pi_sampler - log pi_ref: x; x^2 / 2; exp(-x) - 1 + x")
    ] = "k1"


Kl = Annotated[NoKl | KlInLoss | KlInReward, Field(discriminator="type")]

Level = Annotated[
    Literal["token", "sequence"],
    Field(description="A weight for each token; or one for a completion, the product of its tokens' weights"),
]


class NoCorrection(Strict):
    """The loss takes the sampler's distribution for the learner's."""

    type: Literal["none"] = "none"


class TruncateCorrection(Strict):
    """Each token's loss times min(w, at_most), w = pi_old(token) / pi_sampler(token); w is not differentiated."""

    type: Literal["truncate"] = "truncate"
    level: Level = "token"
    at_most: Annotated[Positive, Field(description="A larger weight counts as this")] = 2.0


class MaskCorrection(Strict):
    """Each token's loss times w = pi_old(token) / pi_sampler(token) where low <= w <= high, else times 0."""

    type: Literal["mask"] = "mask"
    level: Level = "token"
    low: Annotated[NonNegative, Field(description="A smaller weight counts as 0")] = 0.5
    high: Annotated[Positive, Field(description="A larger weight counts as 0")] = 2.0

    @model_validator(mode="after")
    def _band_holds_one(self) -> "MaskCorrection":
        if not self.low <= 1 <= self.high:
            raise ValueError(f"low and high must have 1 between them; got {self.low} and {self.high}")
        return self


Correction = Annotated[NoCorrection | TruncateCorrection | MaskCorrection, Field(discriminator="type")]
