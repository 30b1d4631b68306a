"""Writes docs/terminal.md from the commands: `.venv/bin/python scripts/terminal_reference.py`."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from cli.errors import ExitCode
from cli.main import app

TARGET = Path(__file__).parents[1] / "docs" / "terminal.md"
HEAD = """# The terminal

`mhpo` runs the service and talks to it over the same HTTP as everybody ([api.md](api.md)). This page is made from
`cli/` by `scripts/terminal_reference.py`; `mhpo COMMAND --help` says the same.

## Which service, which key

`--url` or `MHPO_URL`; `http://127.0.0.1:8000` without either. The key is `MHPO_API_KEY`, or the one that `mhpo up`
keeps in `MHPO_DATA_DIR/key.json` (`.mhpo` of the working directory), which goes to its own service alone. On the
loopback address none is needed unless `MHPO_REQUIRE_KEY` is set.

## A run on the screen

`mhpo watch JOB` takes the whole terminal: state, phase, step k of N, time left, attempt and reason; reward with its
band (one `reward_std`) and held-out points (◆), gradient norm on the on-policy scale, KL, length from shortest to
longest, entropy, log-ratio drift, groups without signal and truncation, as many as fit, the first ones first; what the
last twenty steps spent their time on; the service's warnings; the last events. It follows the service's stream, and
behind a break of any length goes on where it was. Ctrl-C leaves: the job runs on. Into a pipe, a file, or a terminal
that cannot move its cursor go plain lines: each event, and the state every five seconds at most.

## For scripts

- `--json` prints JSON, nothing else, to standard output: what the API answers, one object a line. A listing is a line
  an item, none for no items, all pages up to `--limit`. `mhpo watch --json` and `submit --follow --json` print a line
  for each piece of the stream as it comes (`object`: `job.status`, `event`, `job.step`), then the whole `job`. What has
  no route of its own: `doctor` (`check`: `part`, `state` ok, warn, fail or away, `found`, `fix`), `up` (`service`, once
  it is ready), `demo` (the job, its evaluations), `logs --follow` (`offset`, `text`).
- An error is one line on standard error; with `--json` it is the API's envelope, `{"error": {"message", "type",
  "param", "code"}}`.
- `--quiet` prints the id alone, or nothing. Colours go to terminals only; `NO_COLOR` turns them off there too.

```sh
job=$(mhpo submit --quiet spec.toml)
mhpo watch --quiet "$job" || exit $?
mhpo checkpoints download "$job" --out model
mhpo jobs --json | jq -r 'select(.status == "failed") | .status_reason.message'
mhpo metrics "$job" --names reward --json | jq '.series.reward.value[-1]'
```

## Exit codes

The same in every command.
"""
COMPLETION = """## Completion

```sh
mhpo --install-completion    # for the shell that runs; then open a new one
```

Tab completes commands and options, and asks the service for ids of jobs and files, statuses and metric names; silent
where it does not answer within two seconds. `mhpo --show-completion` prints the script instead of installing it.
"""


def reference() -> str:
    """The whole page."""
    codes = [f"| {code.value} | {code.meaning} |" for code in ExitCode]
    parts = [HEAD, "| code | |", "|---|---|", *codes, "", COMPLETION, "## Commands"]
    for title, rows in panels().items():
        parts += ["", f"### {title}", "", "| command | |", "|---|---|", *rows]
    return "\n".join(parts) + "\n"


def panels() -> dict[str, list[str]]:
    """Title of a panel of `mhpo --help` -> a row for each command."""
    found: dict[str, list[str]] = {}
    for panel, usage, about in commands(typer.main.get_command(app), "mhpo", ""):
        found.setdefault(panel, []).append(f"| `{usage}` | {about} |")
    return found


def commands(command: Any, path: str, panel: str) -> Iterator[tuple[str, str, str]]:
    """(panel, usage, what it does) of a command and all below it."""
    panel = command.rich_help_panel if isinstance(command.rich_help_panel, str) else panel
    if hasattr(command, "commands"):
        for name, below in command.commands.items():
            yield from commands(below, f"{path} {name}", panel)
        return
    about = " ".join(command.help.split())
    yield panel, " ".join([path, *(words for param in command.params if (words := written(param)))]).replace("|", "\\|"), about


def written(param: Any) -> str:
    """An argument or option as a line of usage has it; what all commands have is left out."""
    if param.param_type_name == "argument":
        name = param.metavar or param.name.upper()
        return name if param.required or name.startswith("[") else f"[{name}]"
    if param.name in ("url", "json", "help"):
        return ""
    option = max(param.opts, key=len)
    return f"[{option}]" if param.is_flag else f"[{option} {param.metavar or param.name.upper()}]"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
