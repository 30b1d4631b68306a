"""Norms in the weights' own precision, so that a comparison in float64 is one."""

from typing import Any

from torch import nn


def plain_norms(model: nn.Module) -> None:
    """transformers' RMSNorm computes in float32 whatever the weights are, which float64 at 1e-10 would notice."""
    for module in list(model.modules()):
        child: Any
        for name, child in list(module.named_children()):
            if type(child).__name__.endswith("RMSNorm"):
                norm = nn.RMSNorm(child.weight.shape[0], eps=child.variance_epsilon, dtype=child.weight.dtype)
                norm.weight = child.weight
                setattr(module, name, norm)
