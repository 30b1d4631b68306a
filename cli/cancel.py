"""`mhpo cancel`: ask a job to stop."""

from cli.client import Client
from cli.say import say


def cancel(job_id: str, url: str) -> None:
    """Cancel a job; one that runs writes a checkpoint first."""
    job = Client(url).post(f"/v1/jobs/{job_id}/cancel")
    say(f"{job['id']} {'is asked to stop' if job['status'] == 'running' else job['status']}")
