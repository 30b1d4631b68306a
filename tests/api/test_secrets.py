"""No password and no key is in what the service's processes log or answer, whatever goes wrong."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError
from sqlalchemy import make_url

from api.database import transaction
from api.keys import make_key
from api.models import Json, Scope
from api.settings import Settings
from cli.process import ask, finish, spawn
from tests.conftest import ApiServer, api_server, wait_until

PASSWORD = "hush-hush-of-the-database"
HUB_TOKEN = "hf_hush-hush-of-the-hub"


@pytest.fixture
def secrets(record: Settings) -> dict[str, str]:
    """What must not be seen, by name."""
    with transaction() as session:
        _, key = make_key(session, "a test", "default", Scope.ADMIN)
    redis = make_url(record.redis_url).password
    assert redis
    return {"database": PASSWORD, "redis": redis, "key": key, "hub": HUB_TOKEN}


@pytest.fixture
def environment(record: Settings) -> dict[str, str]:
    """The embedded PostgreSQL asks for no password, and takes any."""
    url = make_url(record.database_url).set(password=PASSWORD).render_as_string(hide_password=False)
    return {"MHPO_DATABASE_URL": url, "MHPO_REQUIRE_KEY": "true", "HF_TOKEN": HUB_TOKEN}


@pytest.fixture
def api(environment: dict[str, str], secrets: dict[str, str], tmp_path: Path) -> Iterator[ApiServer]:
    with api_server(tmp_path / "api.log", **environment) as server:
        yield server


def unseen(secrets: dict[str, str], text: str) -> None:
    assert text
    assert [name for name, secret in secrets.items() if secret in text] == []


@pytest.mark.slow
def test_nothing_secret_is_told_by_the_api(api: ApiServer, secrets: dict[str, str], spec: Json) -> None:
    bearer = {"authorization": f"Bearer {secrets['key']}"}
    with api.client() as client:
        answers = [
            client.get("/v1/jobs", headers=bearer),
            client.post("/v1/jobs", headers=bearer, json=spec),
            client.post("/v1/jobs", headers=bearer, content=b'{"name": "' + secrets["key"][:20].encode()),
            client.get("/v1/keys", headers=bearer),
            client.get("/v1/jobs", headers={"authorization": f"Basic {secrets['key']}"}),
            client.get("/v1/jobs", headers={"authorization": f"Bearer {secrets['key']}x"}),
            client.get("/v1/jobs"),
            client.get("/readyz"),
        ]
    assert {answer.status_code for answer in answers} == {200, 201, 400, 401}
    for answer in answers:
        unseen(secrets, answer.text + str(answer.headers))
    unseen(secrets, api.log.read_text())


@pytest.mark.slow
def test_nothing_secret_is_told_of_servers_that_do_not_answer(
    environment: dict[str, str], secrets: dict[str, str], tmp_path: Path
) -> None:
    dead = {
        "MHPO_DATABASE_URL": f"postgresql+psycopg://mhpo:{PASSWORD}@127.0.0.1:1/mhpo",
        "MHPO_REDIS_URL": f"redis://:{secrets['redis']}@127.0.0.1:1/0",
        "MHPO_REAPER_SECONDS": "0.1",
        "MHPO_OUTBOX_SECONDS": "0.1",
        "MHPO_RATE_LIMIT": "5",
    }
    with api_server(tmp_path / "api.log", **environment | dead) as server, server.client() as client:
        bearer = {"authorization": f"Bearer {secrets['key']}"}
        answers = [client.get("/v1/jobs", headers=bearer), client.get("/readyz")]
        wait_until(lambda: "reaper waits for" in server.log.read_text())
    assert [answer.status_code for answer in answers] == [503, 503]
    for answer in answers:
        unseen(secrets, answer.text)
    unseen(secrets, (tmp_path / "api.log").read_text())


@pytest.mark.slow
def test_nothing_secret_is_told_by_a_worker_or_by_what_it_starts(
    api: ApiServer, environment: dict[str, str], secrets: dict[str, str], spec: Json, record: Settings, tmp_path: Path
) -> None:
    job_id = submitted(api, secrets["key"], spec)
    log = tmp_path / "worker.log"
    argv = [sys.executable, "-m", "celery", "-A", "worker.tasks", "worker", "-Q", "gpu", "-c", "1", "-l", "DEBUG"]
    worker = spawn(argv, log=log, env={**os.environ, **environment, "MHPO_API_KEY": secrets["key"]})
    try:
        with api.client() as client:
            client.headers["authorization"] = f"Bearer {secrets['key']}"
            wait_until(lambda: client.get(f"/v1/jobs/{job_id}").json()["status"] == "failed", 120)  # the model is none
            unseen(secrets, client.get(f"/v1/jobs/{job_id}/events").text)
    finally:
        ask(worker, signal.SIGTERM)
        finish(worker, 60)
    unseen(secrets, log.read_text())
    unseen(secrets, (record.run_folder(job_id) / "trainer.log").read_text())


def submitted(api: ApiServer, key: str, spec: Json) -> str:
    with api.client() as client:
        return str(client.post("/v1/jobs", json=spec, headers={"authorization": f"Bearer {key}"}).json()["id"])


def test_settings_are_shown_without_passwords(record: Settings) -> None:
    assert str(make_url(record.redis_url).password) not in repr(record)
    assert "database_url" not in repr(record)


@pytest.mark.slow
@pytest.mark.parametrize("url", [f"postgresql+psycopg://mhpo:{PASSWORD}@127.0.0.1:no/mhpo", f"mysql://mhpo:{PASSWORD}@x/mhpo"])
def test_a_wrong_address_is_refused_without_its_password(url: str) -> None:
    env = {**os.environ, "MHPO_DATABASE_URL": url}
    ended = subprocess.run([sys.executable, "-m", "migrations"], check=False, env=env, capture_output=True, text=True)
    assert ended.returncode != 0
    assert PASSWORD not in ended.stdout + ended.stderr


def test_redis_needs_its_password(record: Settings) -> None:
    """The secrecy of that password is worth something."""
    url = make_url(record.redis_url)
    with Redis(url.host or "", url.port or 0) as client, pytest.raises(AuthenticationError):
        client.ping()
