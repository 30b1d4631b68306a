"""`mhpo benchmarks`: what a model can be scored on, and rows of your own under a name."""

import json
from pathlib import Path
from typing import Any

from rich.table import Table

from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say, say_rows


def list_benchmarks(url: str, *, as_json: bool) -> None:
    """List the benchmarks of the service and those that were added."""
    say_rows(Client(url).get("/v1/benchmarks")["data"], as_json, _table)


def add_benchmark(url: str, name: str, rows: Path, options: Json, samples: int | None, *, as_json: bool) -> None:
    """Register a JSONL or parquet file of this machine; the service reads it, or gets a copy where it is on another."""
    if not rows.is_file():
        raise CliError(f"there is no file {rows}", ExitCode.REFUSED)
    client = Client(url)
    path = str(rows.resolve()) if client.local else client.upload(rows)["id"]
    body: dict[str, Any] = {"name": name, "path": path, **{key: value for key, value in options.items() if value is not None}}
    if samples is not None:
        body["sampling"] = {"samples": samples}
    made = client.post("/v1/benchmarks", body)
    say(json.dumps(made) if as_json else f"{made['name']}: rows {made['content_hash'][:12]} of {made['path']}")


def _table(rows: list[Json]) -> Table:
    table = Table("name", "rows from", "samples", "grader", "licence", box=None, pad_edge=False)
    for row in rows:
        table.add_row(row["name"], row["path"], str(row["sampling"]["samples"]), row["grader"]["type"], row["licence"] or "")
    return table
