"""`mhpo plot`: a metric over steps, in characters."""

from difflib import get_close_matches

from rich.console import Console

from cli.client import Client
from cli.curves import Curve, chart
from cli.errors import CliError, ExitCode
from cli.say import say, say_json

WIDTH, HEIGHT = 72, 14


def plot(job_id: str, metric: str, url: str, *, as_json: bool) -> None:
    """Print the curve of `metric`; raises CliError, with the names there are, for a job that has no such metric."""
    page = Client(url).get(f"/v1/jobs/{job_id}/metrics", names=metric)
    series = page["series"].get(metric, {"step": [], "value": []})  # the service splits names at commas
    curve = [(step, value) for step, value in zip(series["step"], series["value"], strict=True) if value is not None]
    if not curve:
        near = get_close_matches(metric, page["names"], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has: {', '.join(page['names']) or 'no metric yet'}"
        raise CliError(f"{job_id} has no metric {metric!r}; {hint}", ExitCode.NOT_FOUND)
    if as_json:
        say_json(page)
    else:
        show(curve, metric)


def show(curve: Curve, metric: str) -> None:
    """Print a title and the chart."""
    values = [value for _, value in curve]
    tail = values[-10:]
    mean = sum(tail) / len(tail)
    say(f"{metric}: first {values[0]:.3f}, best {max(values):.3f}, mean of the last {len(tail)} steps {mean:.3f}")
    for line in chart(curve, min(WIDTH, Console().width - 10), HEIGHT):
        say(line)
