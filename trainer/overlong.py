"""DAPO's soft overlong punishment (arXiv 2503.14476, equation 13). Torch-free.

0                                    tokens <= limit - buffer
(limit - buffer - tokens) / buffer   above it: -1 at the limit, where completions are cut
"""

from trainer.objective_config import Overlong, SoftPunishment


def length_penalty(tokens: int, limit: int, overlong: Overlong) -> float:
    """What is subtracted from the reward of a completion of `tokens`, end token included; 0 where none is asked for."""
    if not isinstance(overlong, SoftPunishment):
        return 0.0
    return overlong.penalty * max(0, tokens - (limit - overlong.buffer)) / overlong.buffer
