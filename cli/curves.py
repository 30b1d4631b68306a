"""Curves in characters: one line of blocks, or a plot with axes."""

from collections.abc import Sequence

_BLOCKS = "▁▂▃▄▅▆▇█"

Curve = Sequence[tuple[int, float]]  # (step, value), steps rising


def sparkline(values: Sequence[float], width: int) -> str:
    """`values` as at most `width` blocks, each the mean of its share; the lowest block is the smallest mean.

    >>> sparkline([0.0, 0.5, 1.0], 3)
    '▁▅█'
    """
    means = _means(values, width)
    if not means:
        return ""
    low, high = min(means), max(means)
    span = high - low
    return "".join(_BLOCKS[round((mean - low) / span * (len(_BLOCKS) - 1)) if span > 0 else 0] for mean in means)


def chart(curve: Curve, width: int, height: int) -> list[str]:
    """`curve` as `height` + 2 lines: a mark a column at the mean of its share of the steps, axes with their ends."""
    means = _means([value for _, value in curve], width)
    low, high = min(means), max(means)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rows = [round((mean - low) / (high - low) * (height - 1)) for mean in means]
    labels = [f"{low + (high - low) * row / (height - 1):.3g}" for row in range(height)]
    margin = max(len(label) for label in labels)
    lines = []
    for row in reversed(range(height)):
        label = labels[row] if row in (0, height // 2, height - 1) else ""
        marks = "".join("•" if mark == row else " " for mark in rows)
        lines.append(f"{label:>{margin}} ┤{marks}".rstrip())
    first, last = str(curve[0][0]), str(curve[-1][0])
    lines.append(" " * margin + " └" + "─" * len(rows))
    lines.append(" " * (margin + 2) + first + (last.rjust(len(rows) - len(first)) if len(curve) > 1 else ""))
    return lines


def _means(values: Sequence[float], width: int) -> list[float]:
    count = min(width, len(values))
    cuts = [len(values) * i // count for i in range(count)] if count else []
    ends = [*cuts[1:], len(values)]
    return [sum(values[start:end]) / (end - start) for start, end in zip(cuts, ends, strict=False)]
