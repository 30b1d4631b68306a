"""The columns of a row beside problem and answer: options, images, and whatever else graders may look at. Torch-free."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.strict import SpecError
from trainer.types import Image

Row = dict[str, Any]
_URL = re.compile(r"https?://|data:image/")
_MOST_CHOICES = 26


def row_choices(row: Row, column: str | None, param: str, where: str) -> tuple[str, ...]:
    """The texts of the options; none where the row has no such column, or null or nothing in it."""
    found = row.get(column) if column is not None else None
    if found is None:
        return ()
    if (
        not isinstance(found, Sequence)
        or isinstance(found, str)
        or not all(isinstance(one, str | int | float) for one in found)
    ):
        raise SpecError(param, f"{where}: {column!r} is no list of options: {found!r:.80}")
    if len(found) > _MOST_CHOICES:
        raise SpecError(param, f"{where}: {column!r} has {len(found)} options, and there are only {_MOST_CHOICES} letters")
    return tuple(map(str, found))


def row_images(row: Row, column: str | None, folder: Path, param: str, where: str) -> tuple[Image, ...]:
    """One image or a list of them: a path (from `folder` on), an http(s) or data URL, bytes, or the hub's {"bytes", "path"}."""
    found = row.get(column) if column is not None else None
    if found is None:
        return ()
    listed = found if isinstance(found, list | tuple) else [found]
    return tuple(_image(one, folder, param, f"{where}: {column!r}") for one in listed)


def _image(value: object, folder: Path, param: str, where: str) -> Image:
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes) and value:
        return value
    if isinstance(value, str) and value:
        if _URL.match(value):
            return value
        file = (folder / value).resolve()
        if not file.is_relative_to(folder.resolve()):  # rows may come from others: they name no file of the machine
            raise SpecError(param, f"{where} names an image outside of the rows' folder: {value:.200}")
        if not file.is_file():
            raise SpecError(param, f"{where} names an image that is not there: {file}")
        return str(file)
    raise SpecError(param, f"{where} is no image (a path, a URL or bytes): {value!r:.80}")


def is_json(value: object) -> bool:
    """Whether a column's value can be given to a grader as JSON."""
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and is_json(one) for name, one in value.items())
    if isinstance(value, list):
        return all(map(is_json, value))
    return value is None or isinstance(value, str | int | float | bool)
