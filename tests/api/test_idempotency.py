"""One request, sent once or often, makes one job."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from sqlalchemy import text

from api.database import engine
from api.models import Json
from tests.api.conftest import rows

KEY = {"idempotency-key": "b7e1"}


def test_the_same_key_and_body_give_the_same_job(client: httpx.Client, spec: Json) -> None:
    first = client.post("/v1/jobs", json=spec, headers=KEY)
    reordered = dict(reversed(spec.items()))
    again = client.post("/v1/jobs", json=reordered, headers=KEY)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    assert ("idempotency-replayed" in first.headers, again.headers["idempotency-replayed"]) == (False, "true")
    assert client.post("/v1/jobs", json=spec, headers={"idempotency-key": "other"}).json()["id"] != first.json()["id"]
    assert rows("SELECT count(*) FROM jobs") == [(2,)]


def test_the_same_key_with_another_body_is_refused(client: httpx.Client, spec: Json) -> None:
    made = client.post("/v1/jobs", json=spec, headers=KEY).json()["id"]
    refused = client.post("/v1/jobs", json={**spec, "steps": 11}, headers=KEY)
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (409, "idempotency_key_reused", "Idempotency-Key")
    assert made in error["message"]
    assert refused.headers["x-should-retry"] == "false"
    assert rows("SELECT count(*) FROM jobs") == [(1,)]


def test_a_key_is_forgotten_after_a_day(client: httpx.Client, spec: Json) -> None:
    first = client.post("/v1/jobs", json=spec, headers=KEY).json()["id"]
    with engine().begin() as connection:
        connection.execute(text("UPDATE creations SET created_at = now() - interval '25 hours'"))
    assert client.post("/v1/jobs", json={**spec, "steps": 11}, headers=KEY).json()["id"] != first
    assert rows("SELECT count(*) FROM creations") == [(1,)]


def test_a_refused_body_does_not_use_up_its_key(client: httpx.Client, spec: Json) -> None:
    assert client.post("/v1/jobs", json={**spec, "steps": 0}, headers=KEY).status_code == 422
    assert client.post("/v1/jobs", json=spec, headers=KEY).status_code == 201


@pytest.mark.parametrize("headers", [KEY, {"x-stainless-retry-count": "1"}])
def test_requests_at_the_same_time_make_one_job(client: httpx.Client, spec: Json, headers: dict[str, str]) -> None:
    def post(_: int) -> str:
        return str(client.post("/v1/jobs", json=spec, headers=headers).raise_for_status().json()["id"])

    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(post, range(8)))) == 1
    assert rows("SELECT count(*) FROM jobs") == [(1,)]


def test_a_client_that_repeats_itself_without_a_key_gets_the_job_it_made(
    client: httpx.Client, spec: Json, new_job: Callable[..., str]
) -> None:
    def post(retry: int, **changes: object) -> str:
        headers = {"x-stainless-retry-count": str(retry)}
        return str(client.post("/v1/jobs", json={**spec, **changes}, headers=headers).raise_for_status().json()["id"])

    first = post(0)
    assert post(0) != first, "two first requests are two jobs"
    newest = post(0)
    assert (post(1), post(2)) == (newest, newest)
    assert post(1, steps=11) != newest
    with engine().begin() as connection:
        connection.execute(text("UPDATE creations SET created_at = now() - interval '3 minutes'"))
    assert post(1) != newest
