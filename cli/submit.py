"""`mhpo submit`: send a job spec to the service."""

import json
from pathlib import Path

from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say
from cli.watch import watch
from trainer.config import read_document
from trainer.strict import SpecError


def submit(spec: Path, url: str, *, follow: bool, as_json: bool) -> ExitCode:
    """Submit the job in a TOML or JSON file; the service checks it."""
    job = Client(url).post("/v1/jobs", read_spec(spec))
    say(json.dumps(job) if as_json else f"{job['id']} {job['status']}")
    if follow:
        return watch(job["id"], url, as_json=as_json)
    if not as_json:
        say(f"watch it: mhpo watch {job['id']}")
    return ExitCode.DONE


def read_spec(path: Path) -> Json:
    """The document in a spec file; raises CliError where it cannot be read."""
    try:
        document = read_document(path)
    except SpecError as error:
        raise CliError(error.message, ExitCode.REFUSED) from error
    if not isinstance(document, dict):
        raise CliError(f"{path} holds no object", ExitCode.REFUSED)
    return document
