"""The files of a checkpoint: their hashes, taken once in the background, and their archive, made while it is sent."""

import hashlib
import os
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from sqlalchemy import select, update

from api.database import alone, transaction
from api.models import Checkpoint, Json
from api.settings import settings

MARKER = "COMPLETE"
STATE = "trainer_state"  # what the run needs to go on, and nobody else
HASHING_LOCK = 0x68617368  # "hash": an advisory lock, held by the one that hashes
_BLOCK = 1 << 20


def folder_of(checkpoint: Checkpoint) -> Path:
    return settings().run_folder(checkpoint.job_id) / checkpoint.path


def is_available(checkpoint: Checkpoint) -> bool:
    """False where the folder has been removed to keep only the newest."""
    return (folder_of(checkpoint) / MARKER).exists()


def hash_new() -> int:
    """Hash checkpoints that have not been; returns how many, 0 while another process does. What was removed is passed over."""
    if not _not_hashed():
        return 0
    with alone(HASHING_LOCK) as may:
        return _hash(_not_hashed()) if may else 0


def _not_hashed() -> Sequence[Checkpoint]:
    with transaction() as session:
        return session.scalars(select(Checkpoint).where(Checkpoint.contents.is_(None)).order_by(Checkpoint.created_at)).all()


def _hash(checkpoints: Sequence[Checkpoint]) -> int:
    hashed = 0
    for checkpoint in checkpoints:
        if (contents := _contents(checkpoint)) is not None:
            _record(checkpoint, contents)
            hashed += 1
    return hashed


def digest(contents: list[Json]) -> str:
    """SHA-256 of what `find . -type f | LC_ALL=C sort | xargs sha256sum` prints in the folder."""
    lines = [f"{file['sha256']}  ./{file['path']}\n" for file in contents]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def archive(checkpoint: Checkpoint, *, with_state: bool) -> Iterator[bytes]:
    """A tar of the folder, piece by piece; raises OSError where a file is removed meanwhile, which cuts the answer off."""
    folder = folder_of(checkpoint)
    for path in _files(folder):
        if with_state or path.relative_to(folder).parts[0] != STATE:
            yield from _member(path, f"{folder.name}/{path.relative_to(folder)}")
    yield b"\0" * 2 * tarfile.BLOCKSIZE


def _member(path: Path, name: str) -> Iterator[bytes]:
    """Header, content and padding of one file."""
    with path.open("rb") as file:
        about = os.fstat(file.fileno())
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = about.st_size, int(about.st_mtime), 0o644
        yield member.tobuf(tarfile.PAX_FORMAT)
        while block := file.read(_BLOCK):
            yield block
        yield b"\0" * (-member.size % tarfile.BLOCKSIZE)


def _contents(checkpoint: Checkpoint) -> list[Json] | None:
    folder = folder_of(checkpoint)
    if not is_available(checkpoint):
        return None
    try:
        return [_described(path, folder) for path in _files(folder)]
    except FileNotFoundError:  # removed in the meantime
        return None


def _described(path: Path, folder: Path) -> Json:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return {"path": str(path.relative_to(folder)), "bytes": os.fstat(file.fileno()).st_size, "sha256": sha256}


def _files(folder: Path) -> list[Path]:
    return sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: os.fsencode(path.relative_to(folder))
    )


def _record(checkpoint: Checkpoint, contents: list[Json]) -> None:
    """A checkpoint that was written again meanwhile keeps waiting."""
    same = (Checkpoint.job_id == checkpoint.job_id, Checkpoint.step == checkpoint.step)
    with transaction() as session:
        unchanged = Checkpoint.created_at == checkpoint.created_at
        session.execute(update(Checkpoint).where(*same, unchanged).values(contents=contents))
