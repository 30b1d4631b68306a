"""Merge patches on a spec, by the examples of RFC 7396, and the differences that are kept."""

from typing import Any

import pytest

from api.lineage import changes, merge


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [  # RFC 7396, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch_does_what_the_rfc_says(target: Any, patch: Any, result: Any) -> None:
    assert merge(target, patch) == result


def test_merging_leaves_the_parent_as_it_is() -> None:
    parent = {"optimizer": {"lr": 1.0}}
    merge(parent, {"optimizer": {"lr": None, "beta": 2}})
    assert parent == {"optimizer": {"lr": 1.0}}


def test_a_part_of_another_type_starts_empty() -> None:
    mhpo = {"type": "mhpo", "c": 1.5}
    assert merge(mhpo, {"type": "grpo", "eps": 0.2}) == {"type": "grpo", "eps": 0.2}
    assert merge(mhpo, {"type": "mhpo", "c": 2.0}) == {"type": "mhpo", "c": 2.0}
    assert merge(mhpo, {"c": 2.0}) == {"type": "mhpo", "c": 2.0}


def test_changes_are_told_by_dotted_path() -> None:
    before = {"a": 1, "b": {"c": [1], "d": 2, "gone": True}, "same": 0}
    after = {"a": 2, "b": {"c": [1, 2], "d": 2, "new": "x"}, "same": 0}
    assert changes(before, after) == [
        {"path": "a", "from": 1, "to": 2},
        {"path": "b.c", "from": [1], "to": [1, 2]},
        {"path": "b.gone", "from": True, "to": None},
        {"path": "b.new", "from": None, "to": "x"},
    ]
