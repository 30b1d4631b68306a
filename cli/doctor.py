"""`mhpo doctor`: what is here, what is not, and what to do about it."""

from collections.abc import Iterator

from rich.table import Table
from rich.text import Text

from api.settings import Settings
from cli.checks import Finding, State
from cli.errors import ExitCode
from cli.machine_checks import machine, start_imports
from cli.say import say, say_json, wide_console
from cli.service_checks import service

_SIGNS = {State.OK: ("✓", "green"), State.WARN: ("!", "yellow"), State.FAIL: ("✗", "red"), State.AWAY: ("○", "yellow")}


def doctor(settings: Settings, url: str, *, quick: bool, as_json: bool) -> ExitCode:
    """Check all; FAILED where something on this machine must be mended, UNREACHABLE where only the service does not run."""
    found: list[Finding] = []
    for finding in _findings(settings, url, quick=quick):
        found.append(finding)
        if as_json:
            say_json(finding.as_json())
    states = {finding.state for finding in found}
    if not as_json:
        wide_console().print(_table(found))
        say(_verdict(states))
    if State.FAIL in states:
        return ExitCode.FAILED
    return ExitCode.UNREACHABLE if State.AWAY in states else ExitCode.DONE


def _findings(settings: Settings, url: str, *, quick: bool) -> Iterator[Finding]:
    importing = None if quick else start_imports()  # while the service is asked
    there = list(service(settings, url))
    yield from machine(settings, importing)
    yield from there


def _verdict(states: set[State]) -> str:
    if State.FAIL in states:
        return "something must be mended: see ✗"
    if State.AWAY in states:
        return "the machine is fine; the service does not run: mhpo up"
    return "all is well" if State.WARN not in states else "it works, with less: see !"


def _table(found: list[Finding]) -> Table:
    table = Table.grid(padding=(0, 2))
    for each in found:
        sign, style = _SIGNS[each.state]
        table.add_row(Text(sign, style=style), each.part, Text(each.found))
        if each.fix:
            table.add_row("", "", Text(f"→ {each.fix}", style=style))
    return table
