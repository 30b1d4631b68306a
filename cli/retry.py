"""`mhpo retry`: run a failed or cancelled job again."""

import json

from cli.client import Client
from cli.say import say


def retry(job_id: str, url: str, *, as_json: bool) -> None:
    """Submit a new job of the spec of an ended one."""
    job = Client(url).post(f"/v1/jobs/{job_id}/retry")
    say(json.dumps(job) if as_json else f"{job['id']} {job['status']}, from the beginning\nwatch it: mhpo watch {job['id']}")
