"""Who is let in: with which key, to do what, and on the loopback address without one."""

import socket
from datetime import timedelta

import httpx
import pytest

from api.database import transaction
from api.headers import SECURITY_HEADERS
from api.keys import make_key
from api.models import Json, Scope
from api.settings import Settings
from tests.api.conftest import rows
from tests.api.locked import bearer, client_of, new_key
from tests.conftest import ApiServer, api_server, wait_until

NOBODY = "mhpo-" + "a" * 40
JOBS = "/v1/jobs"


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


def test_without_a_key_nothing_is_read_or_written(locked: ApiServer, spec: Json) -> None:
    with locked.client() as client:
        answers = [client.get(JOBS), client.post(JOBS, json=spec), client.get("/v1/nothing"), client.get("/metrics")]
        for answer in answers:
            assert refusal(answer) == (401, "missing_api_key")
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["x-request-id"]
    assert rows("SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.parametrize("header", ["", "Bearer", f"Basic {NOBODY}", NOBODY])
def test_what_is_no_bearer_is_no_key(locked: ApiServer, header: str) -> None:
    with locked.client() as client:
        assert client.get(JOBS, headers={"authorization": header}).status_code == 401


@pytest.mark.parametrize("key", [NOBODY, "sk-something", "mhpo-", "'; DROP TABLE api_keys; --", "\u00e9" * 45])
def test_an_unknown_key_is_refused(locked: ApiServer, key: str) -> None:
    with locked.client() as client:
        answer = client.get(JOBS, headers={b"authorization": b"Bearer " + key.encode()})
        assert refusal(answer) == (401, "invalid_api_key")
        assert key not in answer.text


def test_a_key_works_until_it_is_revoked(locked: ApiServer) -> None:
    with client_of(locked) as client, client_of(locked, scope=Scope.ADMIN) as admin:
        assert client.get(JOBS).status_code == 200
        [(key_id, used)] = rows("SELECT id, last_used_at IS NOT NULL FROM api_keys WHERE scope = 'write'")
        assert used
        assert admin.post(f"/v1/keys/{key_id}/revoke").json()["revoked_at"]
        wait_until(lambda: client.get(JOBS).status_code == 401)
        assert refusal(client.get(JOBS)) == (401, "invalid_api_key")


def test_a_key_works_until_it_expires(locked: ApiServer) -> None:
    with transaction() as session:
        _, key = make_key(session, "soon over", "default", Scope.READ, timedelta(seconds=1.5))
    with locked.client() as client:
        assert client.get(JOBS, headers=bearer(key)).status_code == 200
        wait_until(lambda: client.get(JOBS, headers=bearer(key)).status_code == 401)


def test_only_a_hash_of_a_key_is_kept(record: Settings) -> None:
    key = new_key()
    [row] = rows("SELECT api_keys::text FROM api_keys")
    assert key[:11] in row[0]
    assert key[11:] not in row[0]


@pytest.mark.parametrize(
    ("scope", "may"),
    [(Scope.READ, {"read"}), (Scope.WRITE, {"read", "write"}), (Scope.ADMIN, {"read", "write", "admin"})],
)
def test_a_scope_contains_the_one_before_and_no_more(locked: ApiServer, spec: Json, scope: Scope, may: set[str]) -> None:
    with client_of(locked, scope=scope) as client:
        answers = {"read": client.get(JOBS), "write": client.post(JOBS, json=spec), "admin": client.get("/v1/keys")}
        assert {name for name, answer in answers.items() if answer.is_success} == may
        assert {refusal(answer) for name, answer in answers.items() if name not in may} <= {(403, "scope_missing")}
    assert rows("SELECT count(*) FROM jobs") == [("write" in may,)]


def test_what_is_public_needs_no_key(locked: ApiServer) -> None:
    with locked.client() as client:
        for path in ("/healthz", "/readyz", "/openapi.json", "/docs", "/docs/assets/swagger-ui.css"):
            assert client.get(path).status_code == 200, path
        assert client.post("/healthz").status_code == 401
        assert client.get("/docs/assets/../../v1/jobs").status_code in (401, 404)


def test_on_loopback_no_key_is_needed_but_a_bad_one_is_refused(client: httpx.Client) -> None:
    assert client.get(JOBS).status_code == 200
    assert client.get(JOBS, headers=bearer("whatever an OpenAI client wants to send")).status_code == 200
    assert refusal(client.get(JOBS, headers=bearer(NOBODY))) == (401, "invalid_api_key")
    assert refusal(client.get("/v1/keys")) == (403, "scope_missing")


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", "127.8.8.8:1", "[::1]:8000", "mhpo.localhost"])
def test_on_loopback_it_answers_to_the_names_of_this_machine(client: httpx.Client, name: str) -> None:
    assert client.get(JOBS, headers={"host": name}).status_code == 200


@pytest.mark.parametrize(
    "name", ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", ""]
)
def test_a_name_that_was_made_to_point_here_is_refused(client: httpx.Client, name: str) -> None:
    """DNS rebinding: the browser believes that it talks to the page's own site."""
    assert refusal(client.get(JOBS, headers={"host": name})) == (403, "host_not_allowed")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:3000"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_page_of_another_site_changes_nothing(client: httpx.Client, spec: Json, headers: dict[str, str]) -> None:
    assert refusal(client.post(JOBS, json=spec, headers=headers)) == (403, "cross_site_request")
    assert rows("SELECT count(*) FROM jobs") == [(0,)]


def test_our_own_page_and_a_key_from_anywhere_may(client: httpx.Client, spec: Json) -> None:
    ours = {"origin": str(client.base_url).rstrip("/"), "sec-fetch-site": "same-origin"}
    assert client.post(JOBS, json=spec, headers=ours).status_code == 201
    theirs = {"origin": "http://evil.example", "sec-fetch-site": "cross-site", "host": "evil.example", **bearer(new_key())}
    assert client.post(JOBS, json=spec, headers=theirs).status_code == 201


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip"])
def test_what_a_proxy_hands_on_is_not_from_this_machine(client: httpx.Client, header: str) -> None:
    assert refusal(client.get(JOBS, headers={header: "127.0.0.1"})) == (401, "missing_api_key")


def test_every_answer_carries_the_security_headers(client: httpx.Client, locked: ApiServer) -> None:
    with locked.client() as nobody:
        answers = [client.get(JOBS), client.get("/v1/nothing"), client.post(JOBS, content=b"{"), nobody.get(JOBS)]
    for answer in answers:
        assert {name: answer.headers[name] for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert "server" not in answer.headers


def test_the_docs_page_needs_no_other_host(client: httpx.Client) -> None:
    page = client.get("/docs")
    assert "https://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "script-src 'self' 'sha256-" in policy
    assert "http" not in policy
    assert client.get("/docs/assets/swagger-ui-bundle.js").headers["content-type"].startswith("text/javascript")


def test_a_body_that_stops_arriving_is_given_up(locked: ApiServer) -> None:
    host, port = locked.url.removeprefix("http://").split(":")
    head = f"POST {JOBS} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {new_key()}\r\ncontent-length: 100\r\n\r\n{{"
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(head.encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_more_requests_than_the_limit_wait(record: Settings, tmp_path_factory: pytest.TempPathFactory) -> None:
    log = tmp_path_factory.mktemp("limited") / "api.log"
    with api_server(log, MHPO_RATE_LIMIT="3") as limited, client_of(limited) as client, client_of(limited) as other:
        assert [client.get(JOBS).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = client.get(JOBS)
        assert refusal(refused) == (429, "rate_limit_exceeded")
        assert 0 < int(refused.headers["retry-after"]) <= 20
        assert other.get(JOBS).status_code == 200
        assert client.get("/healthz").status_code == 200
