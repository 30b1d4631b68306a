"""`mhpo resume`: queue a paused job again."""

from cli.client import Client
from cli.say import say


def resume(job_id: str, url: str) -> None:
    """Resume a paused job at its last checkpoint."""
    job = Client(url).post(f"/v1/jobs/{job_id}/resume")
    say(f"{job['id']} {job['status']}")
