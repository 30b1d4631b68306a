"""What PostgreSQL can keep of what a model wrote."""

import math
from typing import Any

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """`value` with what JSONB and text refuse made visible: NUL and lone surrogates become U+FFFD, NaN and infinity null.

    A policy may well sample a NUL; its completion is kept with that character replaced.
    """
    if isinstance(value, str):
        return value.replace("\0", _REPLACEMENT).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {storable(key): storable(item) for key, item in value.items()}
    if isinstance(value, list):
        return [storable(item) for item in value]
    return value
