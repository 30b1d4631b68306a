"""Webhooks, received by a real server and verified by OpenAI's client; and what Prometheus reads."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import httpx
import openai
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.orm import Session

from api import webhooks
from api.database import engine, transaction
from api.destinations import ForbiddenError, open_destination
from api.models import Json, Scope, Status
from api.reason import CANCELLED
from api.record import Claim, finish, request_cancel
from api.routes.webhooks import NewWebhook
from api.settings import settings
from tests.api.conftest import rows
from tests.api.locked import bearer, client_of, new_key
from tests.conftest import ApiServer, api_server, wait_until
from trainer.strict import SpecError

Running = Callable[..., Claim]


class Receiver:
    """A server that keeps what it gets; answers with the next of `statuses`, the last again and again."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.statuses = [200]
        self.got: list[tuple[dict[str, str], bytes]] = []

    def answer(self) -> int:
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]


@contextmanager
def receiving() -> Iterator[Receiver]:
    kept: list[Receiver] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            kept[0].got.append(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(kept[0].answer())
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base's name
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        kept.append(Receiver(f"http://127.0.0.1:{server.server_address[1]}/hook"))
        Thread(target=server.serve_forever, daemon=True).start()
        yield kept[0]
        server.shutdown()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


def subscribe(client: httpx.Client, url: str, **more: object) -> Json:
    made: Json = client.post("/v1/webhooks", json={"url": url, **more}).raise_for_status().json()
    return made


def make_due() -> None:
    with engine().begin() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET next_at = now()"))


def test_the_end_of_a_job_is_told_once_and_signed(client: httpx.Client, receiver: Receiver, running: Running) -> None:
    secret = subscribe(client, receiver.url)["secret"]
    claim = running()
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    assert (webhooks.deliver(), webhooks.deliver()) == (1, 0)
    [(headers, body)] = receiver.got
    checking = OpenAI(api_key="none", webhook_secret=secret)
    event = checking.webhooks.unwrap(body, headers)
    assert event.type == "fine_tuning.job.succeeded"
    assert event.data.id == claim.job_id
    with pytest.raises(openai.InvalidWebhookSignatureError):
        checking.webhooks.unwrap(body.replace(b"succeeded", b"failed"), headers)


def test_a_receiver_that_fails_is_tried_again_with_the_same_id(
    client: httpx.Client, receiver: Receiver, running: Running
) -> None:
    hook = subscribe(client, receiver.url)["id"]
    receiver.statuses = [500, 429, 200]
    with transaction() as session:
        finish(session, running(), Status.FAILED, CANCELLED)
    waits = []
    for _ in range(3):
        make_due()
        assert webhooks.deliver() == 1
        waits.append(rows("SELECT round(extract(epoch FROM next_at - now())) FROM webhook_deliveries")[0][0])
    assert webhooks.deliver() == 0
    assert len({headers["webhook-id"] for headers, _ in receiver.got}) == 1
    assert (4 <= waits[0] <= 5, 13 <= waits[1] <= 15) == (True, True), waits
    [delivery] = client.get(f"/v1/webhooks/{hook}/deliveries").json()["data"]
    assert (delivery["attempts"], delivery["last_error"], delivery["failed_at"]) == (3, None, None)
    assert delivery["delivered_at"]


def test_a_receiver_that_is_not_there_is_given_up_at_last(client: httpx.Client, running: Running) -> None:
    with receiving() as gone:
        hook = subscribe(client, gone.url)["id"]
    with transaction() as session:
        request_cancel(session, running().job_id)
        session.execute(text("UPDATE jobs SET status = 'cancelled'"))
    for _ in range(webhooks.MAX_ATTEMPTS):
        make_due()
        webhooks.deliver()
    [delivery] = client.get(f"/v1/webhooks/{hook}/deliveries").json()["data"]
    assert (delivery["type"], delivery["attempts"]) == ("fine_tuning.job.cancelled", webhooks.MAX_ATTEMPTS)
    assert "ConnectError" in delivery["last_error"]
    assert delivery["failed_at"]
    make_due()
    assert webhooks.deliver() == 0


def test_an_end_that_is_rolled_back_or_not_asked_for_is_not_told(
    client: httpx.Client, receiver: Receiver, running: Running
) -> None:
    subscribe(client, receiver.url, events=["fine_tuning.job.failed"])
    claim = running()
    with engine().connect() as connection, Session(connection) as session:
        finish(session, claim, Status.FAILED, CANCELLED)
        connection.rollback()
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    assert rows("SELECT count(*) FROM webhook_deliveries") == [(0,)]


def test_the_test_call_says_how_it_went(client: httpx.Client, receiver: Receiver) -> None:
    hook = subscribe(client, receiver.url)
    assert "secret" not in client.get("/v1/webhooks").json()["data"][0]
    answer = client.post(f"/v1/webhooks/{hook['id']}/test").json()
    assert (answer["type"], answer["attempts"], answer["last_error"]) == ("webhook.test", 1, None)
    assert json.loads(receiver.got[0][1]) == answer["payload"]
    receiver.statuses = [503]
    assert client.post(f"/v1/webhooks/{hook['id']}/test").json()["last_error"] == "the receiver answered 503"
    make_due()
    assert webhooks.deliver() == 0, "a test is not tried again"
    assert client.delete(f"/v1/webhooks/{hook['id']}").status_code == 200
    assert client.post(f"/v1/webhooks/{hook['id']}/test").status_code == 404


@pytest.mark.parametrize("url", ["ftp://example.com", "example.com", "http://user:secret@example.com", "http://", "x" * 3000])
def test_what_cannot_be_called_is_refused(client: httpx.Client, url: str) -> None:
    refused = client.post("/v1/webhooks", json={"url": url})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "url")


@pytest.fixture
def deployed(record: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """The settings of a service that others reach too, with the given hosts for webhooks."""

    def set_hosts(hosts: str) -> None:
        monkeypatch.setenv("MHPO_HOST", "0.0.0.0")
        monkeypatch.setenv("MHPO_WEBHOOK_HOSTS", hosts)
        settings.cache_clear()

    yield set_hosts
    monkeypatch.undo()
    settings.cache_clear()


INSIDE = ("127.0.0.1", "[::1]", "0.0.0.0", "10.0.0.1", "192.168.1.1", "100.64.0.1", "169.254.169.254", "[fe80::1]", "[fd00::1]")
IN_DISGUISE = ("[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "2130706433", "0x7f.1", "localhost")


@pytest.mark.parametrize("host", [*INSIDE, *IN_DISGUISE])
def test_addresses_inside_a_network_are_not_called(deployed: Callable[[str], None], host: str) -> None:
    """By their numbers at once, and by a name that means them when it is looked up, just before it is called."""
    deployed("")
    with pytest.raises(ForbiddenError, match="no public address; MHPO_WEBHOOK_HOSTS"), open_destination(f"http://{host}/", 1):
        pass
    if host.startswith("["):
        with pytest.raises(SpecError, match="no public address"):
            NewWebhook.parse({"url": f"https://{host}/hook"})


def test_a_delivery_to_an_address_inside_says_why_it_was_not_sent(
    deployed: Callable[[str], None], receiver: Receiver, running: Running
) -> None:
    by_name = receiver.url.replace("127.0.0.1", "localhost")
    with transaction() as session:
        webhooks.make(session, by_name, ["fine_tuning.job.cancelled"])
    deployed("")
    with transaction() as session:
        finish(session, running(), Status.CANCELLED, CANCELLED)
    assert webhooks.deliver() == 1
    [(told,)] = rows("SELECT last_error FROM webhook_deliveries")
    assert told.startswith("ForbiddenError: localhost is ")
    assert receiver.got == []
    deployed("localhost")
    make_due()
    assert webhooks.deliver() == 1
    [(headers, _)] = receiver.got
    assert headers["host"] == by_name.split("/")[2], "called by its name, at the address that was looked at"
    with pytest.raises(ForbiddenError, match="calls localhost only"), open_destination("https://example.com/", 1):
        pass


@pytest.mark.slow
def test_the_service_sends_by_itself(record: object, receiver: Receiver, running: Running, tmp_path: Path) -> None:
    with api_server(tmp_path / "api.log", MHPO_WEBHOOK_SECONDS="0.1") as server, server.client() as client:
        subscribe(client, receiver.url)
        with transaction() as session:
            finish(session, running(), Status.SUCCEEDED, None)
        wait_until(lambda: receiver.got)


def test_prometheus_reads_requests_and_the_record(
    locked: ApiServer, client: httpx.Client, running: Running, new_job: Callable[..., str]
) -> None:
    """Of all projects, so only the scope admin reads it, also on the loopback address."""
    running()
    new_job()
    with client_of(locked, "another", Scope.ADMIN) as admin:
        admin.get("/v1/jobs/nonsense")
        answer = admin.get("/metrics")
        assert admin.get("/metrics", headers=bearer(new_key())).status_code == client.get("/metrics").status_code == 403
    assert answer.headers["content-type"].startswith("text/plain")
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }
    assert (samples["mhpo_jobs", "queued"], samples["mhpo_jobs", "running"], samples["mhpo_jobs", "failed"]) == (1, 1, 0)
    assert samples["mhpo_outbox",] == 2
    assert samples["mhpo_http_request_seconds_count", "/v1/jobs/{job_id}", "404", "GET"] >= 1
