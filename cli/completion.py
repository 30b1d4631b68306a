"""What a shell offers when Tab is pressed: ids and names that the service knows. Silent where it does not answer."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from api.models import Status, is_id
from cli.client import Client
from cli.errors import CliError
from cli.options import LOCAL
from cli.words import progress

_TIMEOUT_SECONDS = 2.0  # somebody waits with a finger on Tab
_MOST = 100


def complete(listed: str, params: Mapping[str, Any], incomplete: str) -> list[tuple[str, str]]:
    """(what it becomes, what it is) for each that begins so; `params` are the options that have been written already."""
    client = Client(params.get("url") or LOCAL, timeout=_TIMEOUT_SECONDS)
    taken = params.get("jobs") or ()
    try:
        found = list(_LISTED[listed](client, params))
    except CliError:
        return []
    return [(word, about) for word, about in found if word.startswith(incomplete) and word not in taken]


def _jobs(client: Client, _: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for job in client.rows("/v1/jobs", _MOST):
        yield job["id"], f"{job['name'] or 'no name'}, {job['status']}, {progress(job)}"


def _files(client: Client, _: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for file in client.rows("/v1/files", _MOST):
        yield file["id"], f"{file['filename']}, {file['rows']} rows"


def _metrics(client: Client, _: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    # An option that still lacks its value keeps the parser from the arguments: the job is in the shell's own line.
    line = os.environ.get("COMP_WORDS") or os.environ.get("_TYPER_COMPLETE_ARGS", "")
    job_id = next((word for word in line.split() if is_id("job", word)), None)
    if job_id is not None:
        for name in client.get(f"/v1/jobs/{job_id}/metrics", names="", max_points=1)["names"]:
            yield name, ""


def _statuses(_: Client, __: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for status in Status:
        yield status.value, ""


_LISTED = {"jobs": _jobs, "files": _files, "metrics": _metrics, "statuses": _statuses}
