"""`mhpo checkpoints`: list a run's checkpoints, download one."""

import hashlib
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

from rich.table import Table

from cli.client import TIMEOUT_SECONDS, Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say, say_json, say_rows
from cli.words import size


def list_checkpoints(job_id: str, url: str, *, as_json: bool) -> None:
    """List checkpoints in the order of their steps."""
    found = Client(url).get(f"/v1/jobs/{job_id}/checkpoints")["data"]
    say_rows(found, as_json, _table, "no checkpoint yet")


def download(job_id: str, step: int | None, out: Path | None, url: str, *, state: bool, as_json: bool, quiet: bool) -> None:
    """Unpack a checkpoint into a folder, its files checked against the hashes that the service knows."""
    client = Client(url)
    checkpoint = client.get(f"/v1/jobs/{job_id}/checkpoints/{_last(client, job_id) if step is None else step}")
    folder = out or Path(f"{job_id}-step_{checkpoint['step']}")
    if folder.exists():
        raise CliError(f"{folder} is there already; name another folder with --out", ExitCode.REFUSED)
    try:
        _fetch(client, f"/v1/jobs/{job_id}/checkpoints/{checkpoint['step']}/archive", checkpoint, folder, state=state)
    except OSError as error:
        raise CliError(f"cannot write {folder}: {error.strerror or error}") from error
    if as_json:
        say_json(checkpoint)
    else:
        hashed = "" if checkpoint["files"] is not None else ", not checked: the service has not hashed it yet"
        say(str(folder) if quiet else f"step {checkpoint['step']} is in {folder}{hashed}")


def _last(client: Client, job_id: str) -> int:
    there = [each["step"] for each in client.get(f"/v1/jobs/{job_id}/checkpoints")["data"] if each["available"]]
    if not there:
        raise CliError(f"{job_id} has no checkpoint to download", ExitCode.NOT_FOUND)
    return int(there[-1])


def _fetch(client: Client, path: str, checkpoint: Json, folder: Path, *, state: bool) -> None:
    """The folder appears when all of it is there and right."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with client.opened(path, {"state": state}, {}, TIMEOUT_SECONDS) as response:
            _unpack(_Reader(response.iter_bytes()), partial)
        [unpacked] = partial.iterdir()
        _check(unpacked, checkpoint)
        unpacked.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class _Reader:
    """Pieces of bytes as the file that tarfile reads from its start to its end."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = b""

    def read(self, amount: int) -> bytes:
        while len(self._held) < amount and (piece := next(self._pieces, b"")):
            self._held += piece
        taken, self._held = self._held[:amount], self._held[amount:]
        return taken


def _unpack(stream: _Reader, folder: Path) -> None:
    try:
        with tarfile.open(fileobj=cast(IO[bytes], stream), mode="r|") as archive:
            archive.extractall(folder, filter="data")
    except tarfile.TarError as error:
        raise CliError(f"the archive was cut off: {error}; try again", ExitCode.UNREACHABLE) from error


def _check(folder: Path, checkpoint: Json) -> None:
    """Raises CliError for a file that is not what the service has hashed; what was not asked for is not missed."""
    for file in checkpoint["files"] or ():
        path = folder / file["path"]
        if path.exists():
            with path.open("rb") as content:
                if hashlib.file_digest(content, "sha256").hexdigest() != file["sha256"]:
                    raise CliError(f"{file['path']} came with another hash than the service has; try again")
        elif not file["path"].startswith("trainer_state/"):
            raise CliError(f"the archive lacks {file['path']}; try again", ExitCode.UNREACHABLE)


def _table(found: list[Json]) -> Table:
    table = Table("step", "", "size", "held out", "scores", "folder", box=None, pad_edge=False)
    for each in found:
        marks = [word for word in ("best", "final") if each[word]] + ([] if each["available"] else ["removed"])
        held_out = "" if each["validation_reward"] is None else f"{each['validation_reward']:.3f}"
        scores = ", ".join(f"{name} {score['avg']:.3f}" for name, score in (each["scores"] or {}).items())
        bytes_ = "" if each["bytes"] is None else size(each["bytes"])
        table.add_row(str(each["step"]), ", ".join(marks), bytes_, held_out, scores, each["path"])
    return table
