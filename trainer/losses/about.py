"""What people want to know of a ratio control before they choose it; docs/algorithms.md is made from these."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class About:
    """One ratio control in words. r is a token's importance ratio, d = log r, A its advantage, sg stop-gradient."""

    formula: str  # the loss of a token
    stopped: str  # what of it is under stop-gradient; "" where the gradient is the derivative of the value
    zero_gradient: str  # where a token gets no gradient
    bound: str  # of the gradient multiplier M, where dloss/dlog pi = -A M
    paper: str
    aggregation: str  # the one that gives the published loss
    peers: str  # how TRL 1.16 and verl 0.9 differ, which one this follows, and why
