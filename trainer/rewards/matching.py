"""Regular expressions, as the pool's processes run them; `re` keeps the compiled ones."""

import re


def search(pattern: str, text: str) -> float:
    """1.0 where the pattern is found anywhere."""
    return float(re.search(pattern, text) is not None)


def fullmatch(pattern: str, text: str) -> float:
    """1.0 where the pattern matches the whole text."""
    return float(re.fullmatch(pattern, text) is not None)
