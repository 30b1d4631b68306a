"""A job made from another: JSON merge patches (RFC 7396) on its spec, and what they changed."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from api.models import Json


@dataclass(frozen=True, slots=True)
class Lineage:
    """Which job a job was made from, and how their specs differ: `{"path", "from", "to"}` for each place."""

    parent_id: str
    diff: list[Json]


def merge(target: Any, patch: Any, *, nulls_stay: bool = False) -> Any:
    """`target` with the merge patch `patch`: objects are merged, null takes a key away (or stays), anything else replaces.

    A part that gets another `type` starts empty: the parameters of one algorithm mean nothing to another.

    >>> merge({"a": 1, "b": {"c": 2, "d": 3}}, {"a": None, "b": {"c": 4}})
    {'b': {'c': 4, 'd': 3}}
    >>> merge({"type": "mhpo", "c": 1.5}, {"type": "grpo"})
    {'type': 'grpo'}
    """
    if not isinstance(patch, dict):
        return patch
    kept = dict(target) if isinstance(target, dict) and not _other_type(target, patch) else {}
    for key, value in patch.items():
        if value is None and not nulls_stay:
            kept.pop(key, None)
        else:
            kept[key] = merge(kept.get(key), value, nulls_stay=nulls_stay)
    return kept


def _other_type(target: Json, patch: Json) -> bool:
    return "type" in target and patch.get("type", target["type"]) != target["type"]


def changes(before: Json, after: Json) -> list[Json]:
    """Where two specs differ, by dotted path; null stands for a key that is not there. Lists are compared as a whole.

    >>> changes({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 4}})
    [{'path': 'b.c', 'from': 2, 'to': 4}]
    """
    return list(_changes(before, after, ""))


def _changes(before: Any, after: Any, path: str) -> Iterator[Json]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted(before.keys() | after.keys()):
            yield from _changes(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    elif before != after:
        yield {"path": path, "from": before, "to": after}
