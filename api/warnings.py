"""What deserves a look in a run's metrics, each with what to try: pure functions of the metrics of some steps.

A rule looks at the run's first steps and its latest ones. It compares medians, so that one odd step is no warning, and says
nothing before it has seen enough. Where the bounds on drift come from: benchmarks/regimes.py.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from trainer.drift import LIMIT

FIRST = 10  # steps at the beginning that later ones are compared with
RECENT = 50  # of the latest steps that are looked at
LATE = 5  # of these, the ones that count as now

Curves = Mapping[str, Sequence[float]]


@dataclass(frozen=True, slots=True)
class Validated:
    """A step at which held-out rows were scored; rewards are means."""

    step: int
    held_out: float
    training: float


@dataclass(frozen=True, slots=True)
class History:
    """What the rules look at: a metric has as many values as steps of that stretch measured it, oldest first."""

    step: int  # the latest
    first: Curves  # of the first FIRST steps
    recent: Curves  # of the latest RECENT steps
    validated: Sequence[Validated] = ()
    completions: int = 1  # sampled in a step
    updates_per_batch: int = 1
    staleness: int = 0

    def late(self, name: str) -> Sequence[float]:
        """The metric in the last LATE steps; empty before there are as many."""
        values = self.recent.get(name, ())
        return values[-LATE:] if len(values) >= LATE else ()

    def before(self, name: str) -> Sequence[float]:
        """The metric in the recent steps before those; empty where these are too few to compare with."""
        values = self.recent.get(name, ())[:-LATE]
        return values if len(values) >= FIRST else ()

    def start(self, name: str) -> Sequence[float]:
        """The metric in the first steps; empty until the recent ones lie behind them."""
        return self.first.get(name, ()) if self.step >= FIRST + LATE else ()


@dataclass(frozen=True, slots=True)
class Warned:
    """A warning: what is seen, and what to try."""

    code: str
    message: str
    hint: str
    metric: str | None = None  # the one that shows it
    step: int | None = None  # at which it was seen


def warnings_of(history: History) -> list[Warned]:
    """Every warning that holds at the history's step."""
    found = (rule(history) for rule in RULES)
    return [warning for warning in found if warning is not None]


def reward_at_zero(history: History) -> Warned | None:
    """Nothing has earned anything for as many steps as there are first ones."""
    rewards = history.recent.get("reward", ())[-FIRST:]
    if len(rewards) < FIRST or any(rewards):
        return None
    return Warned(
        "reward_at_zero",
        f"The reward has been 0 in each of the last {FIRST} steps: nothing is learnt from that.",
        "Read a few rollouts. If answers are right and score 0, the grader does not find them; if they are cut, raise "
        "rollout.max_new_tokens; if they are wrong, begin with easier problems, a larger group_size or a stronger model.",
        "reward",
        history.step,
    )


def no_signal(history: History) -> Warned | None:
    """In every group all completions have one reward."""
    shares = history.late("frac_reward_zero_std")
    if not shares or min(shares) < 1:
        return None
    return Warned(
        "no_signal",
        f"In the last {LATE} steps every group had one reward for all its completions: the advantages are 0.",
        "Problems are all too hard or all too easy. Mix in others, raise group_size or temperature, or set "
        "advantages.zero_variance to resample.",
        "frac_reward_zero_std",
        history.step,
    )


def validation_falls(history: History) -> Warned | None:
    """The last two validations lie a tenth below the best, while the training reward has risen since."""
    if len(history.validated) < 3:
        return None
    best = max(history.validated, key=lambda each: each.held_out)
    last = history.validated[-2:]
    bound = best.held_out - 0.1 * max(abs(each.held_out) for each in history.validated)
    if any(each.held_out >= bound or each.step <= best.step for each in last) or last[-1].training <= best.training:
        return None
    return Warned(
        "validation_falls",
        f"On held-out rows the reward fell from {best.held_out:.3g} at step {best.step} to {last[-1].held_out:.3g}, while in "
        f"training it rose from {best.training:.3g} to {last[-1].training:.3g}.",
        "It learns its own problems by heart, or a weakness of the grader. Use the best checkpoint; try more problems, fewer "
        "epochs, a KL term or a lower learning rate.",
        "eval/reward",
        last[-1].step,
    )


def length_jumps(history: History) -> Warned | None:
    """Completions are twice or half as long as shortly before, or three times as long as at the start."""
    name = "completions/mean_length"
    late, before, start = history.late(name), history.before(name), history.start(name)
    if not late or not before:
        return None
    now, then = median(late), median(before)
    if start and now > 3 * fmean(start):
        told = f"Completions have {now:.0f} tokens; in the first {FIRST} steps they had {fmean(start):.0f}."
    elif not then / 2 <= now <= 2 * then:
        told = f"Completions have {now:.0f} tokens; shortly before they had {then:.0f}."
    else:
        return None
    hint = "Read the newest rollouts: repetition or padding that is paid for? `overlong` punishes length near the limit."
    return Warned("length_jumps", told, hint, name, history.step)


def truncation_jumps(history: History) -> Warned | None:
    """Three in ten completions are cut, or fifteen in a hundred more than shortly before."""
    name = "completions/clipped_ratio"
    late, before = history.late(name), history.before(name)
    if not late:
        return None
    share = median(late)
    if share <= 0.3 and (not before or share <= median(before) + 0.15):
        return None
    return Warned(
        "truncation_jumps",
        f"{share:.0%} of the completions are cut at rollout.max_new_tokens before they end.",
        "Raise rollout.max_new_tokens if they still reason; else punish length with `overlong`, or leave cut completions out "
        "of the loss.",
        name,
        history.step,
    )


def policy_drifts(history: History) -> Warned | None:
    """The updates of one batch take the policy far from the one that sampled it. What is sampled stale is far by design."""
    late = history.late("ratio/log_abs_mean")
    bound = LIMIT if history.staleness == 0 else 0.6
    if not late or median(late) < bound:
        return None
    return Warned(
        "policy_drifts",
        f"Within a step the policy moves {median(late):.2f} nats a token (mean |log-ratio|) from the one that sampled; "
        f"sound runs stay below {bound}.",
        "This comes before a collapse, while the gradient norm looks well. Lower optimizer.lr"
        + (" or updates_per_batch, or set max_drift = 0.02." if history.updates_per_batch > 1 else " or rollout.staleness."),
        "ratio/log_abs_mean",
        history.step,
    )


def kl_grows(history: History) -> Warned | None:
    """The policy is far from the base model. With stale rollouts this comes and goes in runs that do well."""
    late = history.late("kl")
    if not late or history.staleness > 0 or median(late) < 0.8:
        return None
    return Warned(
        "kl_grows",
        f"The KL from the base model is {median(late):.2f} nats a token; sound runs stay below about 0.4.",
        "Lower optimizer.lr or updates_per_batch, raise kl.coefficient, or go back to an earlier checkpoint.",
        "kl",
        history.step,
    )


def sampler_differs(history: History) -> Warned | None:
    """Engine and learner come to disagree on the same weights."""
    name = "sampling/sampling_logp_difference/mean"
    late, start = history.late(name), history.start(name)
    if not late or not start or median(late) < max(0.02, 3 * median(start)):
        return None
    return Warned(
        "sampler_differs",
        f"Engine and learner differ by {median(late):.3f} nats a token; in the first {FIRST} steps it was {median(start):.3f}.",
        "Look at the weight probe. If it is small, the difference is arithmetic: try model.dtype float32, top_p 1, or a "
        "stricter `correction`.",
        name,
        history.step,
    )


def entropy_collapses(history: History) -> Warned | None:
    """Less than a tenth of the first steps' entropy is left."""
    late, start = history.late("entropy"), history.start("entropy")
    if not late or not start or median(late) >= 0.1 * fmean(start):
        return None
    return Warned(
        "entropy_collapses",
        f"The entropy is {median(late):.2g} nats a token; in the first {FIRST} steps it was {fmean(start):.2g}.",
        "Completions of a group become the same, and the signal ends. Lower optimizer.lr, widen the upper clip "
        "(dapo, or epsilon_high), add a KL term, or stop if the reward is where you want it.",
        "entropy",
        history.step,
    )


def grading_fails(history: History) -> Warned | None:
    """More than one in twenty completions could not be graded."""
    late = history.late("grading/failed")
    share = fmean(late) / history.completions if late else 0.0
    if share <= 0.05:
        return None
    return Warned(
        "grading_fails",
        f"A grader fails on {share:.0%} of the completions, which are left out of the loss.",
        "The events name the grader and its first error: an answer it cannot parse, a time limit, a service that is away.",
        "grading/failed",
        history.step,
    )


def step_time_doubles(history: History) -> Warned | None:
    """Steps take twice as long as shortly before."""
    late, before = history.late("step_time"), history.before("step_time")
    if not late or not before or median(late) < 2 * median(before):
        return None
    return Warned(
        "step_time_doubles",
        f"A step takes {median(late):.3g} s; shortly before it took {median(before):.3g} s.",
        "See which part of the step grew: longer completions, a slow grader, or another process on the same device.",
        "step_time",
        history.step,
    )


RULES: tuple[Callable[[History], Warned | None], ...] = (
    reward_at_zero,
    no_signal,
    validation_falls,
    policy_drifts,
    kl_grows,
    entropy_collapses,
    length_jumps,
    truncation_jumps,
    grading_fails,
    sampler_differs,
    step_time_doubles,
)
LOOKED_AT = (
    "reward",
    "frac_reward_zero_std",
    "completions/mean_length",
    "completions/clipped_ratio",
    "ratio/log_abs_mean",
    "kl",
    "sampling/sampling_logp_difference/mean",
    "entropy",
    "grading/failed",
    "step_time",
)
