"""`mhpo cancel`, `pause`, `resume` and `retry`: what is asked of a job that is there."""

from cli.client import Client
from cli.say import say, say_json

# What is said of a job that still runs: it does what was asked when its step is done.
_ASKED = {"cancel": "is asked to stop", "pause": "is asked to pause"}


def ask(verb: str, job_id: str, url: str, *, as_json: bool, quiet: bool) -> None:
    """Ask it; says what the job is now."""
    job = Client(url).post(f"/v1/jobs/{job_id}/{verb}")
    if as_json:
        say_json(job)
    elif not quiet:
        asked = _ASKED.get(verb) if job["status"] == "running" else None
        say(f"{job['id']} {asked or job['status']}")


def retry(job_id: str, url: str, *, as_json: bool, quiet: bool) -> None:
    """Submit a new job of the spec of an ended one."""
    job = Client(url).post(f"/v1/jobs/{job_id}/retry")
    if as_json:
        say_json(job)
    elif quiet:
        say(job["id"])
    else:
        say(f"{job['id']} {job['status']}, from the beginning")
        say(f"watch it: mhpo watch {job['id']}")
