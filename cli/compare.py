"""`mhpo compare`: jobs side by side."""

import sys
from pathlib import Path

from rich.table import Table

from cli.client import Client, Json
from cli.errors import CliError
from cli.say import say, say_json, wide_console
from evaluator.report import shown_p


def compare(jobs: list[str], url: str, *, as_json: bool, as_markdown: bool, png: Path | None) -> None:
    """Show benchmarks x jobs; the others are compared with the first."""
    client, ids = Client(url), ",".join(jobs)
    if png is not None:
        try:
            png.write_bytes(client.download("/v1/compare", jobs=ids, format="png"))
        except OSError as error:
            raise CliError(f"cannot write {png}: {error.strerror}") from error
        if not as_json:
            say(str(png))
    if as_markdown:
        sys.stdout.write(client.text("/v1/compare", jobs=ids, format="markdown"))
        return
    report = client.get("/v1/compare", jobs=ids)
    if as_json:
        say_json(report)
    elif png is None:
        wide_console().print(_table(report))


def _table(report: Json) -> Table:
    table = Table("benchmark", *(run["label"] for run in report["runs"]), box=None, pad_edge=False)
    for row in report["benchmarks"]:
        table.add_row(row["name"], *map(_cell, row["cells"]))
    average = ["" if value is None else f"{100 * value:.1f}" for value in report["average"]]
    table.add_row("average", *average)
    for metric, curves in report["curves"].items():
        last = [f"{curve['value'][-1]:.4g} at step {curve['step'][-1]}" if curve["step"] else "" for curve in curves]
        table.add_row(metric, *last)
    return table


def _cell(cell: Json | None) -> str:
    """`41.2 [31.0, 51.5] +3.1 (p 0.012)*`"""
    if cell is None:
        return "not scored yet"
    bounds = "" if cell["ci_low"] is None else f" [{100 * cell['ci_low']:.1f}, {100 * cell['ci_high']:.1f}]"
    against = cell["versus_first"]
    text = f"{100 * cell['avg']:.1f}{bounds}"
    if against is not None:
        text += f" {100 * against['difference']:+.1f} ({shown_p(against['p_value'])}){'*' if against['significant'] else ''}"
    return f"{text} other rows" if cell["not_comparable"] else text
