"""Many creates at once: all queued, none twice, in order."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from api.models import Json, Task
from api.queue import waiting
from tests.api.conftest import rows
from tests.conftest import SECONDS, ApiServer, wait_until

CLIENTS, EACH = 10, 50


@pytest.mark.slow
def test_five_hundred_creates_at_once_are_all_queued_in_order(client: httpx.Client, shared_api: ApiServer, spec: Json) -> None:
    def create(number: int) -> list[str]:
        with shared_api.client() as own:
            made = [
                own.post("/v1/jobs", json={**spec, "name": f"{number}/{turn}"}, timeout=4 * SECONDS) for turn in range(EACH)
            ]
        return [str(answer.raise_for_status().json()["id"]) for answer in made]

    with ThreadPoolExecutor(CLIENTS) as threads:
        made = list(threads.map(create, range(CLIENTS)))
    queue = [job_id for (job_id,) in rows("SELECT id FROM jobs WHERE status = 'queued' ORDER BY created_at, id")]
    assert len(queue) == CLIENTS * EACH
    for ids in made:
        places = [queue.index(job_id) for job_id in ids]
        assert places == sorted(places), "what one client sent later waits behind"
    wait_until(lambda: waiting(Task.RUN_JOB) == CLIENTS * EACH)
    wait_until(lambda: rows("SELECT count(*) FROM outbox") == [(0,)])  # hints go out before their rows are gone
    listed: list[str] = []
    while True:
        page = client.get("/v1/jobs", params={"limit": 100, **({"after": listed[-1]} if listed else {})}).json()
        listed += [job["id"] for job in page["data"]]
        if not page["has_more"]:
            break
    assert listed == queue[::-1]
