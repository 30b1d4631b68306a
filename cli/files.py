"""`mhpo files`: data sets of the service, uploaded, listed, downloaded and deleted."""

from datetime import UTC, datetime
from pathlib import Path

from rich.table import Table

from cli.client import TIMEOUT_SECONDS, Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say, say_json, say_rows
from cli.words import duration, size


def upload(file: Path, purpose: str, url: str, *, as_json: bool, quiet: bool) -> None:
    """Upload JSONL or parquet; says the id that stands for it in `dataset.path`."""
    if not file.is_file():
        raise CliError(f"there is no file {file}", ExitCode.REFUSED)
    made = Client(url).upload(file, purpose)
    if as_json:
        say_json(made)
    else:
        say(made["id"] if quiet else f"{made['id']} {made['filename']}: {made['rows']} rows of {', '.join(made['columns'])}")


def list_files(url: str, limit: int, *, as_json: bool) -> None:
    """List uploaded files, newest first."""
    say_rows(Client(url).rows("/v1/files", limit), as_json, _table, "no file yet; upload one: mhpo files upload train.jsonl")


def download(file_id: str, out: Path | None, url: str, *, as_json: bool, quiet: bool) -> None:
    """Write a file as it was uploaded; to `out`, or under its own name here."""
    client = Client(url)
    file = client.get(f"/v1/files/{file_id}")
    path = out or Path(Path(file["filename"]).name)
    if path.exists():
        raise CliError(f"{path} is there already; name another file with --out", ExitCode.REFUSED)
    partial = path.with_name(f".{path.name}.partial")
    try:
        with client.opened(f"/v1/files/{file_id}/content", {}, {}, TIMEOUT_SECONDS) as response, partial.open("wb") as target:
            for piece in response.iter_bytes():
                target.write(piece)
        partial.rename(path)
    except OSError as error:
        raise CliError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
    if as_json:
        say_json(file)
    elif not quiet:
        say(f"{path}: {size(file['bytes'])}")


def delete(file_id: str, url: str, *, as_json: bool, quiet: bool) -> None:
    """Remove a file that no job needs any more."""
    gone = Client(url).delete(f"/v1/files/{file_id}")
    if as_json:
        say_json(gone)
    elif not quiet:
        say(f"{file_id} deleted")


def _table(files: list[Json]) -> Table:
    table = Table("file", "name", "purpose", "rows", "size", "age", box=None, pad_edge=False)
    now = datetime.now(UTC).timestamp()
    for file in files:
        cells = (file["purpose"], str(file["rows"]), size(file["bytes"]), duration(max(0.0, now - file["created_at"])))
        table.add_row(file["id"], file["filename"], *cells)
    return table
