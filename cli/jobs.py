"""`mhpo jobs`: what is queued, runs and has ended."""

import json
import sys
from datetime import UTC, datetime

from rich.table import Table

from cli.client import Client, Json
from cli.say import say, wide_console
from cli.view import duration, reason

LIMIT = 100


def jobs(url: str, status: str | None, *, as_json: bool) -> None:
    """List jobs, newest first; of more than LIMIT the newest."""
    page = Client(url).get("/v1/jobs", limit=LIMIT, **({"status": status} if status else {}))
    if as_json:
        sys.stdout.write(json.dumps(page["data"]) + "\n")
        return
    if not page["data"]:
        say(f"no {status} job" if status else "no job yet; submit one: mhpo submit examples/first-run.toml")
        return
    wide_console().print(_table(page["data"]))
    if page["has_more"]:
        say(f"the newest {LIMIT}; older ones: GET {url}/v1/jobs?after={page['data'][-1]['id']}")


def _table(rows: list[Json]) -> Table:
    table = Table("job", "name", "status", "step", "age", "reason", box=None, pad_edge=False)
    for job in rows:
        status = f"{job['status']} ({job['phase']})" if job["status"] == "running" and job["phase"] else job["status"]
        age = (datetime.now(UTC) - datetime.fromisoformat(job["created_at"])).total_seconds()
        table.add_row(
            job["id"], job["name"] or "", status, f"{job['step']}/{job['steps']}", duration(max(0.0, age)), reason(job)
        )
    return table
