"""Writes docs/algorithms.md from the losses: `.venv/bin/python scripts/algorithms_reference.py`.

Words come from the `About` of each loss; every number is computed by the loss itself in float64.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import torch

from trainer.algorithm_config import Algorithm
from trainer.losses.multiplier import multiplier_bound
from trainer.losses.ratio_control import ABOUT, token_loss

TARGET = Path(__file__).parents[1] / "docs" / "algorithms.md"
HEAD = """# Ratio controls

`algorithm.type` names what a token's importance ratio does to its gradient. How per-token losses become one number
(`loss.aggregation`), what a reward is compared with (`advantages`) and the correction of the sampler (`correction`) are
chosen apart from it. This page is made from `trainer/losses/` by `scripts/algorithms_reference.py`; keys and defaults are
in [job-spec.md](job-spec.md), what is logged in [metrics.md](metrics.md).

r = exp(d) is a token's importance ratio, d = log pi_theta - log pi_old, A its advantage, sg stop-gradient; mean_t and sum_t
are over a completion's tokens. The multiplier M is what a token's gradient is scaled by, dloss/dlog pi = -A M: 1 is a plain
policy gradient. Under stop-gradient the gradient is, on purpose, not the derivative of the value.
"""
MULTIPLIERS = """## The multiplier

M at r = 1 and its largest value are computed at the defaults, for a sequence of one token with |d| up to 10. An M of 0.265
at r = 1 means that one learning rate is not the same step size everywhere; `grad_norm/on_policy` is divided by it.
"""
PEERS = """## Whom this follows

TRL is 1.16.0, verl 0.9.1. Values and per-token gradients of both are in `tests/trainer/test_losses.py`, each difference below
in `tests/trainer/test_losses_traps.py`. In general: the paper's defaults and TRL's form. No log-ratio is clamped (verl: to
±20, past which its gradient is 0); an overflow ends in a loss that is not finite, and such an update is not taken. Up to
|d| = 50 nothing overflows in float32.
"""
OPTIONS = """## MHPO's options

Off by default, as in the paper.

- `normalize_on_policy` divides the weight by exp(-zeta(1)), so that M = 1 at r = 1 and learning rates compare with the others'.
- `zero_region` takes the gradient of a token whose ratio has gone past GRPO's clip in its advantage's direction
  (`epsilon_low`, `epsilon_high`; 0.2 each unless set). The value of the loss stays as it is. `clip_ratio/...` then says how
  many tokens that is.
- `zero_region_since` `batch` has the region look at the ratio to the weights before the batch's first update instead of those
  that sampled. Without `rollout.staleness` these are the same weights; with it, the lag does not count. With one update a batch
  nothing has moved by then, and the region is empty.

`max_drift` bounds what one batch's updates do, whatever the algorithm: [off-policy.md](off-policy.md).
"""


def reference() -> str:
    """The whole page."""
    return "\n".join([HEAD, *formulas(), "", MULTIPLIERS, *multipliers(), "", OPTIONS, PEERS, *peers()]).rstrip() + "\n"


def formulas() -> list[str]:
    """What each computes, and where it came from."""
    rows = [
        (f"`{tag(kind)}`", code(about.formula), about.stopped or "nothing", about.zero_gradient, about.aggregation, about.paper)
        for kind, about in ABOUT.items()
    ]
    head = ("name", "loss of a token", "under stop-gradient", "no gradient where", "published with aggregation", "paper")
    return table(head, rows)


def multipliers() -> list[str]:
    """M at r = 1, its bound, and the largest value."""
    rows = []
    for kind, about in ABOUT.items():
        algorithm = kind()
        seen = [largest(algorithm, positive=positive) for positive in (True, False)]
        at_one = f"{multiplier(algorithm, torch.zeros(1, dtype=torch.float64), 1.0).item():.3g}"
        rows.append((f"`{tag(kind)}`", at_one + (" x tokens" if tag(kind) == "luspo" else ""), about.bound, *seen))
    return table(("name", "M at r = 1", "bound of M", "largest M, A > 0", "largest M, A < 0"), rows)


def peers() -> list[str]:
    """One paragraph a ratio control."""
    return [f"- `{tag(kind)}`: {about.peers}." for kind, about in ABOUT.items()]


def largest(algorithm: Algorithm, *, positive: bool) -> str:
    """The largest M found by scanning the log-ratio, or that it grows with the ratio."""
    if math.isinf(multiplier_bound(algorithm, positive=positive)):
        return "grows with r"
    log_ratio_N = torch.linspace(-10, 10, 200_001, dtype=torch.float64)
    return f"{multiplier(algorithm, log_ratio_N, 1.0 if positive else -1.0).max().item():.5g}"


def multiplier(algorithm: Algorithm, log_ratio_N: torch.Tensor, advantage: float) -> torch.Tensor:
    """M [N] by autograd, at each log-ratio, for sequences of one token of old probability e^-10.5."""
    old_BT = torch.full_like(log_ratio_N, -10.5)[:, None]
    now_BT = (old_BT + log_ratio_N[:, None]).requires_grad_()
    advantages_B = torch.full_like(log_ratio_N, advantage)
    loss = token_loss(algorithm, now_BT, old_BT, advantages_B, torch.ones_like(old_BT, dtype=torch.bool))
    (gradient_BT,) = torch.autograd.grad(loss.loss_BT.sum(), now_BT)
    return -gradient_BT[:, 0] / advantage


def tag(kind: type[Algorithm]) -> str:
    """`mhpo`"""
    return str(kind().type)


def code(formula: str) -> str:
    """A formula as code."""
    return f"`{formula}`"


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
