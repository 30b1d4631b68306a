"""docs/failures.md has every promise, and the tests that it names are there."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "failures.md").read_text(encoding="utf-8")


def test_every_promise_has_a_test_that_is_there() -> None:
    lines = re.findall(r"^\| (\d+) \|.*$", TEXT, re.MULTILINE)
    assert [int(number) for number in lines] == list(range(1, 23))
    for line in re.findall(r"^\| \d+ \|.*$", TEXT, re.MULTILINE):
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", line)
        assert named, line
        for file, test in named:
            module = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert test in {part.name for part in module.body if isinstance(part, ast.FunctionDef)}, f"{file}::{test}"


def test_every_file_that_is_named_is_there() -> None:
    for file in re.findall(r"tests/[\w/]+\.py", TEXT):
        assert (ROOT / file).is_file(), file
