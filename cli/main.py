"""The `mhpo` command. Each command lives in a file of its own; what is slow to import is imported when a command runs."""

from typing import Annotated

import typer

from cli import data_commands, job_commands, run_commands
from cli.options import LOCAL, DataDir, Json, Port, Url, group

app = group("Reinforcement-train reasoning models with MHPO: run the service, submit jobs, watch them.")
PANEL = "The service on this machine"


@app.command(rich_help_panel=PANEL)
def up(
    data_dir: DataDir = None, host: Annotated[str | None, typer.Option()] = None, port: Port = None, json: Json = False
) -> None:
    """Run the service in the foreground until Ctrl-C: PostgreSQL and Redis (embedded, unless MHPO_DATABASE_URL and
    MHPO_REDIS_URL name others), API, worker, evaluator."""
    from cli.stack import settings_from
    from cli.up import up

    up(settings_from(data_dir=data_dir, host=host, port=port), as_json=json)


@app.command(rich_help_panel=PANEL)
def demo(
    data_dir: DataDir = None,
    port: Port = 0,
    steps: Annotated[int | None, typer.Option(min=1, help="Steps of the run, in place of the example's.")] = None,
    json: Json = False,
) -> None:
    """Start the service, train the first run, show the scores before and after, stop the service."""
    from cli.demo import demo
    from cli.stack import settings_from

    raise typer.Exit(demo(settings_from(data_dir=data_dir, port=port), steps, as_json=json))


@app.command(rich_help_panel=PANEL)
def doctor(
    data_dir: DataDir = None,
    quick: Annotated[bool, typer.Option("--quick", help="Leave out what takes seconds: importing torch and vLLM.")] = False,
    url: Url = LOCAL,
    json: Json = False,
) -> None:
    """Look at what is installed, the devices, memory and disk, the service and its parts; say what to fix."""
    from cli.doctor import doctor
    from cli.stack import settings_from

    raise typer.Exit(doctor(settings_from(data_dir=data_dir), url, quick=quick, as_json=json))


for part in (job_commands, run_commands, data_commands):
    app.add_typer(part.app)
