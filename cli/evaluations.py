"""`mhpo evaluations`: what the base model and the checkpoints of a run score."""

from rich.table import Table

from cli.client import Client, Json
from cli.say import say_rows


def evaluations(job_id: str, url: str, *, as_json: bool) -> None:
    """List evaluations with their scores, the base model's first."""
    found = Client(url).get(f"/v1/jobs/{job_id}/evaluations")["data"]
    say_rows(found, as_json, table, "no evaluation: the job has no benchmarks, or its first checkpoint is still to come")


def table(found: list[Json]) -> Table:
    """A row for each benchmark of each evaluation."""
    made = Table("model", "benchmark", "avg", "95% interval", "problems", "samples", "status", box=None, pad_edge=False)
    for each in found:
        scores = (each["result"] or {}).get("benchmarks", {})
        for name, score in scores.items():
            low, high = score["ci_low"], score["ci_high"]
            interval = "" if low is None else f"{low:.3f} to {high:.3f}"
            cells = (name, f"{score['avg']:.3f}", interval, str(score["problems"]), str(score["n"]))
            made.add_row(model(each), *cells, each["status"])
        if not scores:
            made.add_row(model(each), "", "", "", "", "", each["status"])
    return made


def model(evaluation: Json) -> str:
    """`base model`, `after step 20`."""
    return "base model" if evaluation["model_kind"] == "base" else f"after step {evaluation['step']}"
