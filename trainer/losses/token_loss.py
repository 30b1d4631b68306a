"""What every ratio control returns, and the sum that makes one number of it; the weights are trainer/aggregation.py's.

Axes: B sequence, T completion token. Masks are True where a token is trained on.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class TokenLoss:
    """Per-token losses before any mask or mean, and what the ratio control did to each token."""

    loss_BT: Tensor  # differentiable in logprobs_BT
    telemetry_BT: dict[str, Tensor]  # metric name -> detached value of each token


def weighted_sum(values_BT: Tensor, weights_BT: Tensor) -> Tensor:
    """The scalar sum of values times weights; a value whose weight is 0 cannot reach it, not even as NaN."""
    return values_BT.masked_fill(weights_BT == 0, 0.0).mul(weights_BT).sum()
