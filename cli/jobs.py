"""`mhpo jobs` and `mhpo show`: what is queued, runs and has ended; one job in full."""

from datetime import UTC, datetime

from rich.table import Table

from cli.client import Client, Json
from cli.say import say, say_json, say_rows, wide_console
from cli.words import duration, hint, progress, reason, state


def jobs(url: str, status: str | None, limit: int, *, as_json: bool, quiet: bool) -> None:
    """List jobs, newest first."""
    rows = Client(url).rows("/v1/jobs", limit, **({"status": status} if status else {}))
    if quiet and not as_json:
        for job in rows:
            say(job["id"])
        return
    empty = f"no {status} job" if status else "no job yet; submit one: mhpo submit examples/first-run.toml"
    say_rows(rows, as_json, _table, empty)


def show(job_id: str, url: str, *, as_json: bool) -> None:
    """Print one job."""
    job = Client(url).get(f"/v1/jobs/{job_id}")
    if as_json:
        say_json(job)
        return
    facts = {
        "name": job["name"],
        "status": state(job),
        "what to do": hint(job),
        "progress": progress(job),
        "worker": job["worker"],
        "made": job["created_at"],
        "started": job["started_at"],
        "ended": job["finished_at"],
        "folder": job["folder"],
        "from": job["parent_id"],
        "differs in": ", ".join(change["path"] for change in job["diff"] or ()),
    }
    table = Table.grid(padding=(0, 2))
    table.add_row("job", job["id"])
    for name, fact in facts.items():
        if fact:
            table.add_row(name, str(fact))
    wide_console().print(table)


def _table(rows: list[Json]) -> Table:
    table = Table("job", "name", "status", "step", "age", "reason", box=None, pad_edge=False)
    for job in rows:
        status = f"{job['status']} ({job['phase']})" if job["status"] == "running" and job["phase"] else job["status"]
        age = (datetime.now(UTC) - datetime.fromisoformat(job["created_at"])).total_seconds()
        cells = (job["name"] or "", status, f"{job['step']}/{job['steps']}", duration(max(0.0, age)), reason(job))
        table.add_row(job["id"], *cells)
    return table
