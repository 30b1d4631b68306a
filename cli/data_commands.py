"""The commands about files, benchmarks and API keys."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import LOCAL, DataDir, FileId, Json, Limit, Quiet, Url, group

app = group()
PANEL = "Data and keys"

files = group("Data sets on the service: upload, list, download, delete.")
benchmarks = group("Benchmarks: list them, add your own.")
keys = group("API keys: who may use the service, and for what.")
for part, name in ((files, "files"), (benchmarks, "benchmarks"), (keys, "keys")):
    app.add_typer(part, name=name, rich_help_panel=PANEL)


@files.command("upload")
def upload_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL or parquet.")],
    purpose: Annotated[str, typer.Option(help="In OpenAI's words: fine-tune, evals, user_data.")] = "fine-tune",
    quiet: Quiet = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Upload rows; the id that is printed stands for them in `dataset.path` of a spec."""
    from cli.files import upload

    upload(file, purpose, url, as_json=json, quiet=quiet)


@files.command("list")
def list_files(limit: Limit = 100, url: Url = LOCAL, json: Json = False) -> None:
    """List uploaded files, newest first."""
    from cli.files import list_files

    list_files(url, limit, as_json=json)


@files.command("download")
def download_file(
    file: FileId,
    out: Annotated[Path | None, typer.Option(help="File to make; else its own name here.")] = None,
    quiet: Quiet = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Download a file as it was uploaded."""
    from cli.files import download

    download(file, out, url, as_json=json, quiet=quiet)


@files.command("delete")
def delete_file(file: FileId, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """Delete a file that no job needs any more."""
    from cli.files import delete

    delete(file, url, as_json=json, quiet=quiet)


@benchmarks.command("list")
def list_benchmarks(url: Url = LOCAL, json: Json = False) -> None:
    """List the benchmarks that a job can be scored on."""
    from cli.benchmarks import list_benchmarks

    list_benchmarks(url, as_json=json)


@benchmarks.command("add")
def add_benchmark(
    name: Annotated[str, typer.Argument(help="What jobs name it by.")],
    rows: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL or parquet.")],
    problem_column: Annotated[str | None, typer.Option(help="Column with the problem; else `problem`.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column with the answer; else `answer`.")] = None,
    answer_after: Annotated[str | None, typer.Option(help="The answer is what follows the last of these.")] = None,
    choices_column: Annotated[str | None, typer.Option(help="Column with a list of options.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with images.")] = None,
    licence: Annotated[str | None, typer.Option()] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Completions a problem, where a job does not say.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Register rows of your own under a name; they are pinned by their hash."""
    from cli.benchmarks import add_benchmark

    options = {
        "problem_column": problem_column,
        "answer_column": answer_column,
        "answer_after": answer_after,
        "choices_column": choices_column,
        "image_column": image_column,
        "licence": licence,
    }
    add_benchmark(url, name, rows, options, samples, as_json=json)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[str, typer.Option(help="read; write, which contains read; or admin, which contains both.")] = "write",
    project: Annotated[str, typer.Option(help="The key sees the jobs and files of this project only.")] = "default",
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="After so many days (d), hours (h) or minutes (m).")
    ] = None,
    data_dir: DataDir = None,
    json: Json = False,
) -> None:
    """Make a key and print it, this once."""
    from cli.keys import create
    from cli.stack import settings_from

    create(settings_from(data_dir=data_dir), name, project, scope, expires, as_json=json)


@keys.command("list")
def list_keys(data_dir: DataDir = None, json: Json = False) -> None:
    """List the keys of all projects, newest first."""
    from cli.keys import show
    from cli.stack import settings_from

    show(settings_from(data_dir=data_dir), as_json=json)


@keys.command("revoke")
def revoke_key(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Its id.")], data_dir: DataDir = None, json: Json = False
) -> None:
    """Make a key useless, at once."""
    from cli.keys import revoke
    from cli.stack import settings_from

    revoke(settings_from(data_dir=data_dir), key, as_json=json)
