"""`mhpo warnings`: what deserves a look in a run, and what to try."""

from rich.table import Table

from cli.client import Client, Json
from cli.say import say_rows


def warnings(job_id: str, url: str, *, as_json: bool) -> None:
    """List the service's warnings."""
    found = Client(url).get(f"/v1/jobs/{job_id}/warnings")["data"]
    say_rows(found, as_json, table, "nothing deserves a look")


def table(found: list[Json]) -> Table:
    """A row for each warning."""
    made = Table("step", "what is seen", "what to try", box=None, pad_edge=False)
    for each in found:
        times = f" ({each['count']} times)" if each["count"] > 1 else ""
        made.add_row("" if each["step"] is None else str(each["step"]), each["message"] + times, each["hint"] or "")
    return made
