"""Curves in fewer bytes: only the columns that are asked for, and no more digits than a drawing shows."""

from collections.abc import Collection
from enum import StrEnum

from api.schemas import Buckets, BucketsView


class Column(StrEnum):
    """A list of a curve in buckets; `step` is always there."""

    X = "x"
    LAST = "last"
    MIN = "min"
    MAX = "max"
    MEAN = "mean"
    N = "n"
    NOT_FINITE = "not_finite"


_MEASURED = (Column.LAST, Column.MIN, Column.MAX, Column.MEAN)


def brief(view: BucketsView, columns: Collection[Column] | None, digits: int | None) -> BucketsView:
    """The view with these columns alone (None: all), measured values in so many significant digits (None: as they are)."""
    kept = set(Column) if columns is None else set(columns)
    series = {name: _brief(curve, kept, digits) for name, curve in view.series.items()}
    return view.model_copy(update={"series": series})


def _brief(curve: Buckets, kept: Collection[Column], digits: int | None) -> Buckets:
    changed: dict[str, list[float | None] | None] = dict.fromkeys(set(Column) - set(kept))
    if digits is not None:
        for column in set(_MEASURED) & set(kept):
            changed[column] = [None if value is None else float(f"{value:.{digits}g}") for value in getattr(curve, column)]
    return curve.model_copy(update=changed)
