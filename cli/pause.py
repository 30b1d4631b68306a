"""`mhpo pause`: have a job save and stop until it is resumed."""

from cli.client import Client
from cli.say import say


def pause(job_id: str, url: str) -> None:
    """Pause a job; one that runs writes a checkpoint first."""
    job = Client(url).post(f"/v1/jobs/{job_id}/pause")
    say(f"{job['id']} {'is asked to pause' if job['status'] == 'running' else job['status']}")
