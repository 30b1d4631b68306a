"""The commands about what a run has produced: curves, log, events, rollouts, scores, checkpoints."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import LOCAL, Follow, JobId, Json, Limit, Metric, Step, Url, group

app = group()
PANEL = "What a run has produced"


@app.command(rich_help_panel=PANEL)
def plot(job: JobId, metric: Metric = "reward", url: Url = LOCAL, json: Json = False) -> None:
    """Plot a metric over steps, in characters."""
    from cli.plot import plot

    plot(job, metric, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def metrics(
    job: JobId,
    names: Annotated[str | None, typer.Option(help="Metric names with commas between; all if left out.")] = None,
    max_points: Annotated[int | None, typer.Option(min=1, max=10_000, help="Buckets a curve; with --json all points.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """List the metrics of a run: course, last value, smallest and largest."""
    from cli.metrics import metrics

    metrics(job, names, max_points, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def logs(
    job: JobId,
    follow: Follow = False,
    component: Annotated[str, typer.Option(help="trainer, or the id of an evaluation.")] = "trainer",
    tail: Annotated[int, typer.Option("--tail", "-n", min=1, max=10_000, help="Lines from the end.")] = 200,
    search: Annotated[str | None, typer.Option(help="Only lines with this text, in any case.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Print the end of a run's log."""
    from cli.logs import logs

    logs(job, component, tail, search, url, follow=follow, as_json=json)


@app.command(rich_help_panel=PANEL)
def events(
    job: JobId,
    follow: Follow = False,
    phases: Annotated[bool, typer.Option("--phases", help="The phases of each step too; --json has them always.")] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Print what has happened to a job, oldest first."""
    from cli.logs import events

    events(job, url, phases=phases, follow=follow, as_json=json)


@app.command(rich_help_panel=PANEL)
def warnings(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """List what deserves a look in a run, and what to try."""
    from cli.warnings import warnings

    warnings(job, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def samples(
    job: JobId,
    step: Annotated[int | None, typer.Option(min=0, help="The latest if left out.")] = None,
    min_reward: Annotated[float | None, typer.Option()] = None,
    max_reward: Annotated[float | None, typer.Option()] = None,
    grader: Annotated[str | None, typer.Option(help="The bounds are of this grader's score.")] = None,
    truncated: Annotated[bool | None, typer.Option(help="Cut at max_new_tokens, or not.")] = None,
    limit: Limit = 4,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Print prompts of a step with what the model answered, rewards and advantages."""
    from cli.samples import samples

    asked = {"step": step, "min_reward": min_reward, "max_reward": max_reward, "grader": grader, "truncated": truncated}
    samples(job, asked, limit, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def evaluations(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """List what the base model and the checkpoints score."""
    from cli.evaluations import evaluations

    evaluations(job, url, as_json=json)


checkpoints = group("Checkpoints of a run: list them, download one.")
app.add_typer(checkpoints, name="checkpoints", rich_help_panel=PANEL)


@checkpoints.command("list")
def list_checkpoints(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """List checkpoints in the order of their steps."""
    from cli.checkpoints import list_checkpoints

    list_checkpoints(job, url, as_json=json)


@checkpoints.command("download")
def download_checkpoint(
    job: JobId,
    step: Step = None,
    out: Annotated[Path | None, typer.Option(help="Folder to make; else JOB-step_N here.")] = None,
    state: Annotated[bool, typer.Option("--state", help="With optimizer and random state, from which a run goes on.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the folder alone.")] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Download a checkpoint as a model folder, its files checked against their hashes."""
    from cli.checkpoints import download

    download(job, step, out, url, state=state, as_json=json, quiet=quiet)
