"""A job's news as server-sent events: all of it, once, in order, whoever is killed, at no cost to the database."""

import asyncio
import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from api.database import transaction
from api.ingest import Span, store_events, store_metrics
from api.models import Json, Status
from api.news import Position
from api.record import Claim, finish, request_cancel
from api.settings import settings
from api.streams import LISTENER
from tests.api.conftest import rows
from tests.conftest import SECONDS, ApiServer, api_server, wait_until

Running = Callable[..., Claim]


@dataclass(frozen=True, slots=True)
class Sent:
    """A server-sent event."""

    kind: str
    id: str
    data: Json


class Stream:
    """An open stream, read event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def block(self) -> list[str]:
        """The lines up to the next empty one."""
        lines: list[str] = []
        while line := next(self._lines):
            lines.append(line)
        return lines

    def rest(self) -> list[str]:
        """The lines up to the end of the answer."""
        return list(self._lines)

    def next(self) -> Sent:
        """The next event, comments and `retry` passed over."""
        while True:
            fields = dict(line.split(": ", 1) for line in self.block())
            if "event" in fields:
                return Sent(fields["event"], fields["id"], json.loads(fields["data"]))

    def until(self, last: Callable[[Sent], bool]) -> list[Sent]:
        """Events up to the one that is `last`."""
        sent = [self.next()]
        while not last(sent[-1]):
            sent.append(self.next())
        return sent


@contextmanager
def stream(server: ApiServer, job_id: str, last: str | None = None, **params: str) -> Iterator[Stream]:
    headers = {} if last is None else {"last-event-id": last}
    with (
        server.client() as client,
        client.stream("GET", f"/v1/jobs/{job_id}/stream", params=params, headers=headers) as response,
    ):
        assert response.status_code == 200, response.read()
        yield Stream(response)


def record_steps(claim: Claim, first: int, last: int) -> None:
    """Steps `first` to `last`, each with its metrics line and an event."""
    for step in range(first, last + 1):
        with transaction() as session:
            line = {"step": step, "time": 1.0, "metrics": {"reward": step / 4}}
            store_metrics(session, claim, [line], Span("metrics.jsonl", step - 1, step))
            note = {"time": 1.0, "step": step, "level": "info", "type": "note", "message": f"{step}\u2028", "data": {}}
            store_events(session, claim, [note], Span("events.jsonl", step - 1, step))


def append_log(claim: Claim, text: str) -> None:
    file = settings().run_folder(claim.job_id) / "trainer.log"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("a") as log:
        log.write(text)


def steps_of(sent: list[Sent]) -> list[int]:
    return [each.data["step"] for each in sent if each.kind == "metrics"]


def notes_of(sent: list[Sent]) -> list[int]:
    return [each.data["step"] for each in sent if each.kind == "event" and each.data["type"] == "note"]


def listeners() -> set[int]:
    """The database's processes that serve API processes which listen; other services of the test run have theirs."""
    return {pid for (pid,) in rows("SELECT pid FROM pg_stat_activity WHERE application_name = :name", name=LISTENER)}


def test_a_stream_has_what_was_and_what_comes(client: httpx.Client, shared_api: ApiServer, running: Running) -> None:
    claim = running()
    record_steps(claim, 1, 3)
    append_log(claim, "one\ntw")
    with stream(shared_api, claim.job_id) as opened:
        assert opened.response.headers["content-type"].startswith("text/event-stream")
        assert opened.response.headers["x-accel-buffering"] == "no"
        assert opened.response.headers["x-request-id"]
        assert opened.block() == ["retry: 3000"]
        past = opened.until(lambda sent: sent.kind == "log")
        assert (past[0].kind, past[0].data["status"], past[0].data["step"]) == ("status", "running", 3)
        assert [each.data["type"] for each in past if each.kind == "event"] == ["status", "status", "note", "note", "note"]
        assert past[6].data["message"] == "1\u2028"
        assert steps_of(past) == [1, 2, 3]
        assert past[-1].data == {"component": "trainer", "text": "one\n"}
        append_log(claim, "o\nthree\n")
        assert opened.next().data["text"] == "two\nthree\n"
        record_steps(claim, 4, 4)
        live = opened.until(lambda sent: sent.kind == "event")
        assert steps_of(live) == [4]
        with transaction() as session:
            request_cancel(session, claim.job_id)
        assert opened.until(lambda sent: sent.kind == "status")[-1].data["phase"] == "cancelling"
        with transaction() as session:
            finish(session, claim, Status.CANCELLED, None)
        assert opened.until(lambda sent: sent.kind == "status")[-1].data["status"] == "cancelled"


def test_a_stream_goes_on_behind_the_last_event_that_arrived(
    client: httpx.Client, shared_api: ApiServer, running: Running
) -> None:
    claim = running()
    record_steps(claim, 1, 5)
    append_log(claim, "text\n")
    with stream(shared_api, claim.job_id) as opened:
        whole = opened.until(lambda sent: sent.kind == "log")
    assert len(whole) == 1 + 7 + 5 + 1
    for number, sent in enumerate(whole[:-1]):
        with stream(shared_api, claim.job_id, last=sent.id) as opened:
            rest = opened.until(lambda sent: sent.kind == "log")
        assert rest == whole[number + 1 :]
    with stream(shared_api, claim.job_id, after=whole[-2].id) as opened:
        assert opened.next() == whole[-1]


def test_a_stream_from_now_has_the_status_and_nothing_past(
    client: httpx.Client, shared_api: ApiServer, running: Running
) -> None:
    claim = running()
    record_steps(claim, 1, 3)
    with stream(shared_api, claim.job_id, **{"from": "now"}) as opened:
        assert opened.next().data["step"] == 3
        record_steps(claim, 4, 5)
        assert steps_of(opened.until(lambda sent: sent.kind == "metrics" and sent.data["step"] == 5)) == [4, 5]
    with stream(shared_api, claim.job_id, kinds="metrics") as opened:
        assert [opened.next().data["step"] for _ in range(5)] == [1, 2, 3, 4, 5]


def test_a_line_that_is_half_written_is_told_of_whole(client: httpx.Client, shared_api: ApiServer, running: Running) -> None:
    claim = running()
    append_log(claim, "one\ntw")
    with stream(shared_api, claim.job_id, **{"from": "now"}) as opened:
        opened.until(lambda sent: sent.kind == "status")
        append_log(claim, "o\nth")
        assert opened.until(lambda sent: sent.kind == "log")[-1].data["text"] == "two\n"
        append_log(claim, "ree\n")
        assert opened.until(lambda sent: sent.kind == "log")[-1].data["text"] == "three\n"


def test_what_is_no_position_or_no_job_is_refused(client: httpx.Client, running: Running) -> None:
    path = f"/v1/jobs/{running().job_id}/stream"
    for text in ("17", "a.b.c.d", "1.2.3.-4", f"{2**63}.0.0.0", "1.2.3.4.5"):
        answer = client.get(path, headers={"last-event-id": text})
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "Last-Event-ID")
    assert client.get("/v1/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa/stream").status_code == 404
    assert Position.parse(str(Position(1, 2, 3, 2**32 - 1))) == Position(1, 2, 3, 2**32 - 1)


@pytest.mark.slow
def test_hundreds_of_streams_cost_the_database_nothing(running: Running, tmp_path: Path) -> None:
    """300 open streams of one job: as many sessions in the database as with one, and each stream hears all."""
    claim = running()
    record_steps(claim, 1, 2)
    others = listeners()

    def busy() -> list[tuple[object, ...]]:
        query = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
        return rows(f"{query} AND state <> 'idle'")

    async def watch(http: httpx.AsyncClient, at: asyncio.Barrier) -> list[int]:
        steps = []
        async with http.stream("GET", f"/v1/jobs/{claim.job_id}/stream", params={"kinds": "metrics"}) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    steps.append(json.loads(line.removeprefix("data: "))["step"])
                    if len(steps) == 2:
                        await at.wait()
                    if len(steps) == 6:
                        break
        return steps

    async def all_of_them(count: int) -> list[list[int]]:
        limits = httpx.Limits(max_connections=count)
        async with httpx.AsyncClient(base_url=server.url, timeout=SECONDS, trust_env=False, limits=limits) as http:
            at = asyncio.Barrier(count + 1)
            watching = [asyncio.create_task(watch(http, at)) for _ in range(count)]
            await at.wait()  # all have what was: all are open
            await asyncio.to_thread(wait_until, lambda: len(listeners() - others) == 1 and not busy())
            await asyncio.to_thread(record_steps, claim, 3, 6)
            return await asyncio.gather(*watching)

    with api_server(tmp_path / "api.log") as server:
        assert asyncio.run(all_of_them(300)) == [[1, 2, 3, 4, 5, 6]] * 300


@pytest.mark.slow
def test_a_stream_goes_on_after_the_api_was_killed(running: Running, tmp_path: Path) -> None:
    """The API is killed in mid-stream, steps go on, another API answers: no gap and nothing twice."""
    claim = running()
    record_steps(claim, 1, 20)
    with api_server(tmp_path / "first.log") as server, stream(server, claim.job_id) as opened:
        got = opened.until(lambda sent: sent.kind == "metrics" and sent.data["step"] == 7)
        record_steps(claim, 21, 25)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(SECONDS)
    record_steps(claim, 26, 30)
    with api_server(tmp_path / "second.log") as server, stream(server, claim.job_id, last=got[-1].id) as opened:
        got += opened.until(lambda sent: sent.kind == "metrics" and sent.data["step"] == 30)
        record_steps(claim, 31, 31)
        got += opened.until(lambda sent: sent.kind == "event" and sent.data["step"] == 31)
        os.kill(server.process.pid, signal.SIGTERM)
        assert [line for line in opened.rest() if line] == [], "the stream ends as a whole, for its reader to ask again"
        assert server.process.wait(SECONDS) in (0, -signal.SIGTERM)
        assert "graceful shutdown exceeded" not in server.log.read_text()
    assert steps_of(got) == list(range(1, 32))
    assert notes_of(got) == list(range(1, 32))


@pytest.mark.slow
def test_streams_live_through_a_lost_listening_connection(running: Running, tmp_path: Path) -> None:
    claim, others = running(), listeners()
    with api_server(tmp_path / "api.log") as server, stream(server, claim.job_id, kinds="metrics") as opened:
        record_steps(claim, 1, 1)
        assert opened.next().data["step"] == 1
        [pid] = listeners() - others
        rows("SELECT pg_terminate_backend(:pid)", pid=pid)
        wait_until(lambda: pid not in listeners())
        record_steps(claim, 2, 3)
        assert [opened.next().data["step"] for _ in range(2)] == [2, 3]
