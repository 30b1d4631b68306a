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

keys = typer.Typer(help="API keys: who may use the service, and for what.", no_args_is_help=True)
app.add_typer(keys, name="keys")

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
def compare(
    jobs: Annotated[list[str], typer.Argument(metavar="JOB...", help="Job ids; the others are compared with the first.")],
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    png: Annotated[Path | None, typer.Option(help="Write a figure: gain by benchmark, gradient norm, reward.")] = None,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Compare jobs: scores with 95% intervals, and whether they differ from the first job's."""
    from cli.compare import compare

    compare(jobs, url, as_json=json, as_markdown=markdown, png=png)


benchmarks = typer.Typer(help="Benchmarks: list them, add your own.", no_args_is_help=True)
app.add_typer(benchmarks, name="benchmarks")


@benchmarks.command("list")
def list_benchmarks(url: Url = LOCAL, json: Json = False) -> None:
    """List the benchmarks that a job can be scored on."""
    from cli.benchmarks import list_benchmarks

    list_benchmarks(url, as_json=json)


@benchmarks.command("add")
def add_benchmark(
    name: Annotated[str, typer.Argument(help="What jobs name it by.")],
    rows: Annotated[Path, typer.Argument(metavar="FILE", help="JSONL or parquet.")],
    problem_column: Annotated[str | None, typer.Option(help="Column with the problem; else `problem`.")] = None,
    answer_column: Annotated[str | None, typer.Option(help="Column with the answer; else `answer`.")] = None,
    answer_after: Annotated[str | None, typer.Option(help="The answer is what follows the last of these.")] = None,
    choices_column: Annotated[str | None, typer.Option(help="Column with a list of options.")] = None,
    image_column: Annotated[str | None, typer.Option(help="Column with images.")] = None,
    licence: Annotated[str | None, typer.Option()] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Completions a problem, where a job does not say.")] = None,
    url: Url = LOCAL,
) -> None:
    """Register rows of your own under a name; they are pinned by their hash."""
    from cli.benchmarks import add_benchmark

    options = {
        "problem_column": problem_column,
        "answer_column": answer_column,
        "answer_after": answer_after,
        "choices_column": choices_column,
        "image_column": image_column,
        "licence": licence,
    }
    add_benchmark(url, name, rows, options, samples)


@app.command()
def plot(job: JobId, metric: Annotated[str, typer.Option(help="Name of the metric.")] = "reward", url: Url = LOCAL) -> None:
    """Plot a metric over steps, in characters."""
    from cli.plot import plot

    plot(job, metric, url)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it.")],
    scope: Annotated[str, typer.Option(help="read; write, which contains read; or admin, which contains both.")] = "write",
    project: Annotated[str, typer.Option(help="The key sees the jobs and files of this project only.")] = "default",
    expires: Annotated[
        str | None, typer.Option(metavar="90d", help="After so many days (d), hours (h) or minutes (m).")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Make a key and print it, this once."""
    from cli.keys import create
    from cli.stack import settings_from

    create(settings_from(data_dir=data_dir), name, project, scope, expires)


@keys.command("list")
def list_keys(data_dir: DataDir = None, json: Json = False) -> None:
    """List the keys of all projects, newest first."""
    from cli.keys import show
    from cli.stack import settings_from

    show(settings_from(data_dir=data_dir), as_json=json)


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(metavar="KEY", help="Its id.")], data_dir: DataDir = None) -> None:
    """Make a key useless, at once."""
    from cli.keys import revoke
    from cli.stack import settings_from

    revoke(settings_from(data_dir=data_dir), key)
