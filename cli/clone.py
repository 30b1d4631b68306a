"""`mhpo clone`: a new job of another's spec, some of it changed."""

import json
from collections.abc import Sequence
from typing import Any

from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say


def clone(job_id: str, changes: Sequence[str], url: str, *, as_json: bool, quiet: bool) -> None:
    """Submit the spec of a job with `key=value` changes; says what differs."""
    job = Client(url).post(f"/v1/jobs/{job_id}/clone", patch(changes))
    if as_json or quiet:
        say(json.dumps(job) if as_json else job["id"])
        return
    say(f"{job['id']} {job['status']}")
    for change in job["diff"]:
        say(f"  {change['path']}: {json.dumps(change['from'])} -> {json.dumps(change['to'])}")
    say(f"watch it: mhpo watch {job['id']}")


def patch(changes: Sequence[str]) -> Json:
    """The merge patch that the arguments stand for: dotted keys, values in JSON, what is not JSON is text.

    >>> patch(["optimizer.lr=1e-5", "optimizer.betas=[0.9, 0.99]", "name=second try", "algorithm=null"])
    {'optimizer': {'lr': 1e-05, 'betas': [0.9, 0.99]}, 'name': 'second try', 'algorithm': None}
    """
    made: Json = {}
    for change in changes:
        key, sign, text = change.partition("=")
        if not sign or not all(key.split(".")):
            raise CliError(f"{change!r} is no change; write key=value, as in optimizer.lr=1e-5", ExitCode.REFUSED)
        *parts, last = key.split(".")
        place = made
        for part in parts:
            place = place.setdefault(part, {})
            if not isinstance(place, dict):
                raise CliError(f"{change!r} and an earlier change exclude each other", ExitCode.REFUSED)
        if last in place:
            raise CliError(f"{key!r} is changed twice", ExitCode.REFUSED)
        place[last] = _value(text)
    return made


def _value(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_no_number)
    except ValueError:
        return text


def _no_number(constant: str) -> None:
    raise ValueError(constant)  # NaN and Infinity are not JSON
