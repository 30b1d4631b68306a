"""The commands about jobs: submit them, list them, tell them what to do."""

from pathlib import Path
from typing import Annotated

import typer

from cli.options import (
    LOCAL,
    JobId,
    JobIds,
    Json,
    Limit,
    Quiet,
    Spec,
    StatusOption,
    Url,
    group,
)

app = group()
PANEL = "Jobs"


@app.command(rich_help_panel=PANEL)
def submit(
    spec: Spec,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch the job to its end.")] = False,
    quiet: Quiet = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Submit a job."""
    from cli.submit import submit

    raise typer.Exit(submit(spec, url, follow=follow, as_json=json, quiet=quiet))


@app.command(rich_help_panel=PANEL)
def plan(spec: Spec, url: Url = LOCAL, json: Json = False) -> None:
    """Check a spec as it would be submitted, and say what the job needs: steps, time, memory."""
    from cli.submit import plan

    plan(spec, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def jobs(status: StatusOption = None, limit: Limit = 100, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """List jobs, newest first."""
    from cli.jobs import jobs

    jobs(url, status, limit, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def show(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """Print one job; with --json all of it, its spec too."""
    from cli.jobs import show

    show(job, url, as_json=json)


@app.command(rich_help_panel=PANEL)
def watch(
    job: JobId,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing; the exit code tells.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="Where no terminal is: how long the service may be away.")
    ] = 300,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Follow a job to its end; Ctrl-C leaves it running. Exit code: 0 succeeded, 1 failed, 3 cancelled."""
    from cli.watch import watch

    raise typer.Exit(watch(job, url, as_json=json, quiet=quiet, patience=patience))


@app.command(rich_help_panel=PANEL)
def cancel(job: JobId, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """Ask a job to stop; its last finished step is kept as a checkpoint."""
    from cli.verbs import ask

    ask("cancel", job, url, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def pause(job: JobId, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """Have a job save a checkpoint, stop and free its device until it is resumed."""
    from cli.verbs import ask

    ask("pause", job, url, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def resume(job: JobId, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """Queue a paused job again; it goes on at its checkpoint."""
    from cli.verbs import ask

    ask("resume", job, url, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def retry(job: JobId, quiet: Quiet = False, url: Url = LOCAL, json: Json = False) -> None:
    """Run a failed or cancelled job again from the beginning, as a new job."""
    from cli.verbs import retry

    retry(job, url, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def clone(
    job: JobId,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="As in optimizer.lr=1e-5 or algorithm.type=grpo; null: the default."),
    ] = None,
    quiet: Quiet = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Submit the spec of a job with some of it changed."""
    from cli.clone import clone

    clone(job, changes or [], url, as_json=json, quiet=quiet)


@app.command(rich_help_panel=PANEL)
def compare(
    jobs: JobIds,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write a figure: gain by benchmark, gradient norm, reward.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Compare jobs: scores with 95% intervals, and whether they differ from the first job's."""
    from cli.compare import compare

    compare(jobs, url, as_json=json, as_markdown=markdown, png=png)
