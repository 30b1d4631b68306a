"""The `mhpo` command. Each command lives in a file of its own; what is slow to import is imported when a command runs."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.errors import CliError


class Commands(TyperGroup):
    """Shows an error of ours as one sentence, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            sys.stderr.write(f"mhpo: {error}\n")
            raise typer.Exit(error.code) from error


app = typer.Typer(
    cls=Commands,
    help="Reinforcement-train reasoning models with MHPO: run the service, submit jobs, watch them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Url = Annotated[str, typer.Option(envvar="MHPO_URL", help="Address of the service.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]
JobId = Annotated[str, typer.Argument(metavar="JOB", help="Job id, as `mhpo jobs` shows it.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of everything that the service keeps (MHPO_DATA_DIR, else .mhpo).")]
Port = Annotated[int | None, typer.Option(help="Port of the API (MHPO_PORT, else 8000; 0 for a free one).")]

LOCAL = "http://127.0.0.1:8000"


@app.command()
def up(data_dir: DataDir = None, host: Annotated[str | None, typer.Option()] = None, port: Port = None) -> None:
    """Run the service in the foreground until Ctrl-C: PostgreSQL and Redis (embedded, unless MHPO_DATABASE_URL and
    MHPO_REDIS_URL name others), API, worker, evaluator."""
    from cli.stack import settings_from
    from cli.up import up

    up(settings_from(data_dir=data_dir, host=host, port=port))


@app.command()
def demo(
    data_dir: DataDir = None,
    port: Port = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the run, in place of the example's.")] = None,
) -> None:
    """Start the service, train the first run, show the scores before and after, stop the service."""
    from cli.demo import demo
    from cli.stack import settings_from

    raise typer.Exit(demo(settings_from(data_dir=data_dir, port=port), steps))


@app.command()
def submit(
    spec: Annotated[Path, typer.Argument(metavar="SPEC", help="Job spec, TOML or JSON.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch the job to its end.")] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Submit a job."""
    from cli.submit import submit

    raise typer.Exit(submit(spec, url, follow=follow, as_json=json))


@app.command()
def jobs(
    status: Annotated[str | None, typer.Option(help="Only jobs of this status.")] = None, url: Url = LOCAL, json: Json = False
) -> None:
    """List jobs, newest first."""
    from cli.jobs import jobs

    jobs(url, status, as_json=json)


@app.command()
def watch(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """Follow a job to its end. Exit code: 0 succeeded, 1 failed, 3 cancelled."""
    from cli.watch import watch

    raise typer.Exit(watch(job, url, as_json=json))


@app.command()
def cancel(job: JobId, url: Url = LOCAL) -> None:
    """Ask a job to stop; its last finished step is kept as a checkpoint."""
    from cli.cancel import cancel

    cancel(job, url)


@app.command()
def pause(job: JobId, url: Url = LOCAL) -> None:
    """Have a job save a checkpoint, stop and free its device until it is resumed."""
    from cli.pause import pause

    pause(job, url)


@app.command()
def resume(job: JobId, url: Url = LOCAL) -> None:
    """Queue a paused job again; it goes on at its checkpoint."""
    from cli.resume import resume

    resume(job, url)


@app.command()
def retry(job: JobId, url: Url = LOCAL, json: Json = False) -> None:
    """Run a failed or cancelled job again from the beginning, as a new job."""
    from cli.retry import retry

    retry(job, url, as_json=json)


@app.command()
def clone(
    job: JobId,
    changes: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE...", help="As in optimizer.lr=1e-5 or algorithm.type=grpo; null: the default."),
    ] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Submit the spec of a job with some of it changed."""
    from cli.clone import clone

    clone(job, changes or [], url, as_json=json)


@app.command()
def plot(job: JobId, metric: Annotated[str, typer.Option(help="Name of the metric.")] = "reward", url: Url = LOCAL) -> None:
    """Plot a metric over steps, in characters."""
    from cli.plot import plot

    plot(job, metric, url)
