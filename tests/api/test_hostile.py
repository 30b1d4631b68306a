"""Whatever is sent: no answer says that the service broke, and a refused body leaves no row."""

import json
from collections import Counter
from random import Random

import httpx
import pytest

from api.models import Json, Scope
from cli.say import say
from tests.api.conftest import rows
from tests.api.hostile import KEYS, PATHS, TEXTS, bodies, hostile_value
from tests.api.locked import client_of
from tests.conftest import ApiServer

SOME, MANY = 150, 10_000


def assert_withstood(client: httpx.Client, spec: Json, seed: int, count: int) -> Counter[int]:
    """Send `count` bodies; returns how often each status came."""
    answers: Counter[int] = Counter()
    for number, body in enumerate(bodies(spec, seed, count)):
        answer = client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
        assert answer.status_code < 500, f"body {number} of seed {seed}: {answer.text}\n{body[:500]!r}"
        if answer.status_code != 201:
            error = answer.json()["error"]
            assert error["message"]
            assert len(answer.content) < 20_000, f"body {number} of seed {seed} comes back in its refusal"
        answers[answer.status_code] += 1
    assert set(answers) <= {201, 400, 413, 422}
    made = answers[201]
    [counts] = rows(
        "SELECT (SELECT count(*) FROM jobs), (SELECT count(*) FROM events WHERE type = 'status'),"
        " (SELECT count(DISTINCT job_id) FROM events), (SELECT count(DISTINCT key) FROM outbox WHERE key LIKE 'job-%')"
    )
    assert counts[:3] == (made, made, made)
    assert counts[3] <= made  # the relay takes hints away
    assert client.get("/v1/jobs").status_code == 200
    return answers


def test_some_hostile_bodies(client: httpx.Client, spec: Json) -> None:
    answers = assert_withstood(client, spec, 0, SOME)
    assert answers[400]
    assert answers[422]


@pytest.mark.slow
def test_ten_thousand_hostile_bodies(client: httpx.Client, spec: Json, capsys: pytest.CaptureFixture[str]) -> None:
    answers = assert_withstood(client, spec, 1, MANY)
    with capsys.disabled():
        say(f"\n{MANY} hostile bodies: {dict(sorted(answers.items()))}; no 5xx, no row but those of the {answers[201]} jobs")


def test_hostile_ids_and_queries(client: httpx.Client) -> None:
    random = Random(2)
    texts = [text.encode("utf-8", "replace").decode() for text in (*PATHS, *TEXTS, *KEYS) if len(text) < 2000]
    for text in texts:
        paths = [f"/v1/jobs/{_quoted(text)}", f"/v1/jobs/{_quoted(text)}/cancel", f"/v1/files/{_quoted(text)}"]
        for path in paths:
            assert client.request(random.choice(["GET", "POST", "DELETE", "PUT"]), path).status_code < 500, path
        query = {name: text for name in ("after", "status", "limit", "names", "from_step", "step") if random.random() < 0.5}
        for path in ("/v1/jobs", "/v1/files", "/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa/metrics"):
            assert client.get(path, params=query).status_code < 500, (path, query)
    assert rows("SELECT count(*) FROM jobs") == [(0,)]


def test_hostile_uploads(client: httpx.Client) -> None:
    random = Random(3)
    contents = [
        b"\0" * 1000,
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"PAR1" + bytes(100) + b"PAR1",
        b'{"\\u0000": "\\ud800"}',
        b"\xff\xfe",
    ]
    names = [name.encode("utf-8", "replace").decode() for name in (*PATHS, *TEXTS) if len(name) < 1000]
    kept = 0
    for name in names:
        content = random.choice(contents)
        answer = client.post("/v1/files", files={"file": (name, content)})
        assert answer.status_code in (201, 422), (name, content[:20], answer.text)
        kept += answer.status_code == 201
    assert rows("SELECT count(*) FROM files") == [(kept,)]
    assert all("/" not in name for (name,) in rows("SELECT filename FROM files"))


def test_hostile_wishes_for_keys(locked: ApiServer) -> None:
    random = Random(4)
    with client_of(locked, scope=Scope.ADMIN) as admin:
        made = 1
        for _ in range(60):
            body = {key: hostile_value(random) for key in random.sample(["name", "scope", "days", "project"], 2)}
            answer = admin.post("/v1/keys", content=json.dumps(body))
            assert answer.status_code in (201, 400, 422), body
            made += answer.status_code == 201
    assert rows("SELECT count(*) FROM api_keys") == [(made,)]


def _quoted(text: str) -> str:
    return "".join(f"%{byte:02x}" for byte in text.encode("utf-8", "replace"))
