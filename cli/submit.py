"""`mhpo submit` and `mhpo plan`: send a job spec to the service."""

from pathlib import Path

from cli.client import Client, Json
from cli.errors import CliError, ExitCode
from cli.say import say, say_json
from cli.watch import watch
from cli.words import duration, size
from trainer.config import read_document
from trainer.strict import SpecError


def submit(spec: Path, url: str, *, follow: bool, as_json: bool, quiet: bool) -> ExitCode:
    """Submit the job in a TOML or JSON file; the service checks it."""
    job = Client(url).post("/v1/jobs", read_spec(spec))
    if as_json:
        say_json(job)
    else:
        say(job["id"] if quiet else f"{job['id']} {job['status']}")
    if follow:
        return watch(job["id"], url, as_json=as_json, quiet=quiet)
    if not as_json and not quiet:
        say(f"watch it: mhpo watch {job['id']}")
    return ExitCode.DONE


def plan(spec: Path, url: str, *, as_json: bool) -> None:
    """Have the service check a spec as it would be submitted; says what the job needs."""
    planned = Client(url).post("/v1/jobs/plan", read_spec(spec))
    if as_json:
        say_json(planned)
        return
    eta = planned["eta_seconds"]
    say(f"valid: {planned['steps']} steps, {planned['completions']} completions")
    say(f"time: {'not known, no comparable run yet' if eta is None else 'about ' + duration(eta)}")
    say(f"memory: {_fit(planned['fit'])}")


def read_spec(path: Path) -> Json:
    """The document in a spec file; raises CliError where it cannot be read."""
    try:
        document = read_document(path)
    except SpecError as error:
        raise CliError(error.message, ExitCode.REFUSED) from error
    if not isinstance(document, dict):
        raise CliError(f"{path} holds no object", ExitCode.REFUSED)
    return document


def _fit(fit: Json) -> str:
    """`about 3.1 GiB of 80.0 GiB on cuda: fits`."""
    needed = "not known" if fit["bytes_total"] is None else f"about {size(fit['bytes_total'])}"
    there = "" if fit["device_bytes"] is None else f" of {size(fit['device_bytes'])}"
    verdict = {None: "", True: ": fits", False: ": does not fit"}[fit["fits"]]
    return f"{needed}{there} on {fit['device_name'] or fit['device']}{verdict}"
