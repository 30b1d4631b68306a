"""Uploaded data sets: on disk first, validated, then in the record."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session

from api.models import TERMINAL, File, Job, OpenAIJob, Purpose, new_id
from api.settings import settings
from api.storable import storable
from trainer.config import Dataset
from trainer.data import iter_rows
from trainer.strict import SpecError


class FileInUseError(Exception):
    """A job that has not ended needs the file."""


_CHUNK = 1 << 20
_PARQUET_MAGIC = b"PAR1"


@dataclass(frozen=True, slots=True)
class _Content:
    bytes: int
    sha256: str


@contextmanager
def received(source: BinaryIO, filename: str, purpose: Purpose) -> Iterator[File]:
    """The row of an uploaded file, for the caller to `keep`; the file is removed again if the block fails.

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
            purpose=purpose,
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


def keep(session: Session, row: File) -> None:
    """Insert the row. Where a file of the same content is there already, both share it on disk."""
    _lock_content(session, row.sha256)
    twin = session.scalar(select(File.path).where(File.sha256 == row.sha256, File.format == row.format).limit(1))
    if twin is not None:
        location(row).unlink()
        row.path = twin
    session.add(row)
    session.flush()


def delete(session: Session, file_id: str) -> Path | None:
    """Remove the row; returns what may be removed from disk once this is committed, None where another row shares it.

    Raises FileInUseError that names a job which uses the file and has not ended.
    """
    file = session.scalars(select(File).where(File.id == file_id).with_for_update()).one()
    _lock_content(session, file.sha256)
    user = session.scalar(select(Job.id).where(Job.status.not_in(TERMINAL), _uses(file)).limit(1))
    if user is not None:
        raise FileInUseError(f"the job {user}, which has not ended, uses the file {file_id}; cancel it first")
    session.delete(file)
    session.flush()
    shared = session.scalar(select(File.id).where(File.path == file.path).limit(1))
    return location(file) if shared is None else None


def location(file: File) -> Path:
    """Where the file lies."""
    return settings().data_dir.resolve() / file.path


def _uses(file: File) -> ColumnElement[bool]:
    """Trains on it, is scored on it, or was made of it."""
    asked = [OpenAIJob.request[name].astext == file.id for name in ("training_file", "validation_file")]
    path = str(location(file))
    trains = Job.resolved_spec["dataset"]["path"].astext == path
    scored = Job.resolved_spec["evaluation"]["benchmarks"].contains([path])
    return or_(trains, scored, Job.id.in_(select(OpenAIJob.job_id).where(or_(*asked))))


def _lock_content(session: Session, sha256: str) -> None:
    """Until the end of the transaction nobody else keeps or deletes a file of this content."""
    session.execute(select(func.pg_advisory_xact_lock(int(sha256[:15], 16))))


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
