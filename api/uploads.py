"""Uploaded data sets: on disk first, validated, then in the record."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from api.models import File, new_id
from api.settings import settings
from api.storable import storable
from trainer.config import Dataset
from trainer.data import iter_rows
from trainer.strict import SpecError

_CHUNK = 1 << 20
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class _Content:
    bytes: int
    sha256: str


@contextmanager
def received(source: BinaryIO, filename: str) -> Iterator[File]:
    """The row of an uploaded file, for the caller to insert; the file is removed again if the block fails.

    Raises SpecError (`file`) that names the line which is not a JSON object, or says why it is no parquet.
    """
    suffix = "parquet" if source.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC else "jsonl"
    source.seek(0)
    file_id = new_id("file")
    path = settings().files_folder() / f"{file_id}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    name = storable(PurePosixPath(filename).name)[:255] or "upload"
    try:
        content = _write(source, path)
        rows, columns = _inspect(path, name)
        yield File(
            id=file_id,
            filename=name,
            format=suffix,
            bytes=content.bytes,
            sha256=content.sha256,
            rows=rows,
            columns=[storable(column) for column in columns],
            path=str(path.relative_to(settings().data_dir.resolve())),
        )
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _write(source: BinaryIO, path: Path) -> _Content:
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as target:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size += target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    return _Content(size, digest.hexdigest())


def _inspect(path: Path, name: str) -> tuple[int, list[str]]:
    """(number of rows, columns in the order in which they appear)."""
    rows, columns = 0, dict[str, None]()
    try:
        for row in iter_rows(Dataset(path=str(path)), "file"):
            rows += 1
            columns.update(dict.fromkeys(row))
    except SpecError as error:
        raise SpecError("file", error.message.replace(str(path), name)) from error
    if rows == 0:
        raise SpecError("file", f"{name} has no rows")
    return rows, list(columns)
