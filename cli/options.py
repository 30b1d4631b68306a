"""What the commands have in common: options, how an error is shown, and what a shell completes. Imports nothing slow."""

import json as json_text
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.errors import CliError, ExitCode

LOCAL = "http://127.0.0.1:8000"
_AS_JSON = "mhpo.json"  # in a context's meta: whether the command that runs prints JSON


class Commands(TyperGroup):
    """Shows an error of ours as one sentence, or as JSON where the command prints JSON, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CliError as error:
            as_json = ctx.meta.get(_AS_JSON, False)
            sys.stderr.write(f"{json_text.dumps(error.as_json())}\n" if as_json else f"mhpo: {error}\n")
            raise typer.Exit(error.code) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(ExitCode.INTERRUPTED) from error


def group(text: str = "") -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        cls=Commands,
        help=text,
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _note_json(ctx: typer.Context, value: bool) -> bool:
    ctx.meta[_AS_JSON] = value
    return value


def _completed(listed: str) -> Callable[[typer.Context, str], list[tuple[str, str]]]:
    """A completion out of what the service lists."""

    def complete(ctx: typer.Context, incomplete: str) -> list[tuple[str, str]]:
        from cli.completion import complete

        return complete(listed, ctx.params, incomplete)

    return complete


Url = Annotated[str, typer.Option(envvar="MHPO_URL", help="Address of the service.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.", callback=_note_json)]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the id alone, or nothing.")]
JobId = Annotated[
    str, typer.Argument(metavar="JOB", help="Job id, as `mhpo jobs` shows it.", autocompletion=_completed("jobs"))
]
JobIds = Annotated[
    list[str],
    typer.Argument(metavar="JOB...", help="Job ids; all are compared with the first.", autocompletion=_completed("jobs")),
]
FileId = Annotated[
    str, typer.Argument(metavar="FILE_ID", help="As `mhpo files list` shows it.", autocompletion=_completed("files"))
]
Metric = Annotated[str, typer.Option(help="Name of the metric; docs/metrics.md has all.", autocompletion=_completed("metrics"))]
Step = Annotated[int | None, typer.Argument(metavar="[STEP]", min=0, help="Of the checkpoint; the last if left out.")]
StatusOption = Annotated[str | None, typer.Option(help="Only jobs of this status.", autocompletion=_completed("statuses"))]
Follow = Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, to the end of the job.")]
Limit = Annotated[int, typer.Option(min=1, help="So many at most.")]
Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="Job spec, TOML or JSON.")]
DataDir = Annotated[Path | None, typer.Option(help="Folder of everything that the service keeps (MHPO_DATA_DIR, else .mhpo).")]
Port = Annotated[int | None, typer.Option(help="Port of the API (MHPO_PORT, else 8000; 0 for a free one).")]
