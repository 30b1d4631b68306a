"""What a newer worker of the same service writes: this version shows it as it is, and no verb changes what it does not know."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from sqlalchemy import text

from api.database import engine, transaction
from api.models import Job, ModelKind, Scope
from api.record import Claim, claim_next, reap, schedule_evaluation
from tests.api.conftest import expire_leases, rows
from tests.api.locked import bearer, new_key
from tests.cli.command import mhpo
from tests.conftest import ApiServer

TABLES = ("jobs", "evaluations", "events")
NEWER = """
    UPDATE jobs SET status = 'preempted', phase = 'migrating',
        status_reason = '{"code": "preempted", "fault": "scheduler", "message": "Another job was dearer.", "retryable": true}';
    UPDATE evaluations SET status = 'sharded', phase = 'splitting', model_kind = 'merged';
    UPDATE events SET level = 'notice'
"""


@pytest.fixture
def newer(running: Callable[..., Claim]) -> Iterator[str]:
    """A job, its evaluation and its events, in words of a later migration."""
    job_id = running().job_id
    with transaction() as session:
        schedule_evaluation(session, job_id, ModelKind.CHECKPOINT, 5, {})
    query = "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint WHERE contype = 'c'"
    checks = [check for check in rows(query) if check[0] in TABLES]
    with engine().begin() as connection:
        for table, name, _ in checks:
            connection.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
        connection.execute(text(NEWER))
    yield job_id
    with engine().begin() as connection:
        connection.execute(text(f"TRUNCATE {', '.join(TABLES)} CASCADE"))
        for table, name, definition in checks:
            connection.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition}"))


def test_unknown_words_are_shown_as_they_are(client: httpx.Client, shared_api: ApiServer, newer: str) -> None:
    job = client.get(f"/v1/jobs/{newer}").json()
    assert (job["status"], job["phase"], job["status_reason"]["fault"]) == ("preempted", "migrating", "scheduler")
    (listed,) = client.get("/v1/jobs").json()["data"]
    assert [listed[key] for key in ("status", "phase", "status_reason")] == [
        job[key] for key in ("status", "phase", "status_reason")
    ]
    (evaluation,) = client.get(f"/v1/jobs/{newer}/evaluations").json()["data"]
    assert [evaluation[key] for key in ("status", "phase", "model_kind")] == ["sharded", "splitting", "merged"]
    assert {event["level"] for event in client.get(f"/v1/jobs/{newer}/events").json()["data"]} == {"notice"}
    assert client.get(f"/v1/fine_tuning/jobs/{newer}").json()["status"] == "preempted"
    assert client.get(f"/v1/fine_tuning/jobs/{newer}/events").json()["data"][0]["level"] == "notice"
    admin = bearer(new_key(scope=Scope.ADMIN))
    assert 'mhpo_jobs{status="preempted"} 1.0' in client.get("/metrics", headers=admin).text
    with client.stream("GET", f"/v1/jobs/{newer}/stream") as stream:
        lines = stream.iter_lines()
        assert any(line == "event: status" for line in lines)
        assert json.loads(next(lines).removeprefix("data: "))["status"] == "preempted"
    for address in ("/", f"/jobs/{newer}"):
        assert "preempted · migrating" in client.get(address).text
    assert "preempted" in mhpo("jobs", "--url", shared_api.url).stdout


@pytest.mark.parametrize("verb", ["cancel", "pause", "resume", "retry"])
def test_a_job_in_an_unknown_status_is_left_to_whoever_knows_it(client: httpx.Client, newer: str, verb: str) -> None:
    before = rows("SELECT * FROM jobs")
    answer = client.post(f"/v1/jobs/{newer}/{verb}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "wrong_status")
    assert "preempted" in answer.json()["error"]["message"]
    expire_leases()
    with transaction() as session:
        assert claim_next(session, Job, "worker-2") is None
        assert not any(reap(session, Job).values())
    assert rows("SELECT * FROM jobs") == before
