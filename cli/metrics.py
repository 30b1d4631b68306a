"""`mhpo metrics`: every curve of a run in a line."""

from rich.table import Table

from cli.client import Client, Json
from cli.curves import sparkline
from cli.say import say, say_json, wide_console

_WIDTH = 24


def metrics(job_id: str, names: str | None, max_points: int | None, url: str, *, as_json: bool) -> None:
    """List metrics with their course and last value; as JSON the service's answer, every point or `max_points` buckets."""
    asked: dict[str, str | int] = {"names": names} if names else {}
    client, path = Client(url), f"/v1/jobs/{job_id}/metrics"
    if as_json:
        say_json(client.get(path, **asked, **({} if max_points is None else {"max_points": max_points})))
        return
    page = client.get(path, **asked, max_points=max_points or _WIDTH)
    if page["names"]:
        wide_console().print(_table(page))
    else:
        say("nothing measured yet")


def _table(page: Json) -> Table:
    table = Table("metric", "", "last", "smallest", "largest", "step", box=None, pad_edge=False)
    for name, curve in sorted(page["series"].items()):
        means = [mean for mean in curve["mean"] if mean is not None]
        if means:
            low = min(value for value in curve["min"] if value is not None)
            high = max(value for value in curve["max"] if value is not None)
            ends = (f"{value:.4g}" for value in (means[-1] if curve["last"][-1] is None else curve["last"][-1], low, high))
            table.add_row(name, sparkline(means, _WIDTH), *ends, str(curve["step"][-1]))
    return table
