"""Compressed answers: what they hold, what they leave alone, and that a copy stays known by its tag."""

import gzip
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from api.database import transaction
from api.ingest import Span, store_checkpoint, store_metrics
from api.models import Json
from api.record import Claim
from api.settings import settings

PLAIN = {"accept-encoding": "identity"}
Running = Callable[..., Claim]


@pytest.fixture
def measured(running: Running) -> Claim:
    """A job with curves that are worth compressing."""
    claim = running()
    lines = [{"step": step, "time": 1.0, "metrics": {"reward": step / 7, "loss": 1 / step}} for step in range(1, 200)]
    with transaction() as session:
        store_metrics(session, claim, lines, Span("metrics.jsonl", 0, 1))
    return claim


def raw(client: httpx.Client, path: str, **headers: str) -> tuple[httpx.Response, bytes]:
    """The answer and its bytes as they came."""
    with client.stream("GET", path, headers={"accept-encoding": "gzip", **headers}) as response:
        return response, b"".join(response.iter_raw())


def test_a_long_answer_comes_compressed_and_a_short_one_as_it_is(client: httpx.Client, measured: Claim) -> None:
    path = f"/v1/jobs/{measured.job_id}/metrics"
    plain = client.get(path, headers=PLAIN)
    assert "content-encoding" not in plain.headers
    response, sent = raw(client, path)
    assert response.headers["content-encoding"] == "gzip"
    assert int(response.headers["content-length"]) == len(sent) < len(plain.content) / 2
    assert gzip.decompress(sent) == plain.content
    short, content = raw(client, "/healthz")
    assert ("content-encoding" in short.headers, content) == (False, b'{"status":"ok"}')


def test_a_copy_is_known_by_its_tag_however_it_was_sent(client: httpx.Client, measured: Claim) -> None:
    path = f"/v1/jobs/{measured.job_id}/metrics"
    plain, (compressed, _) = client.get(path, headers=PLAIN), raw(client, path)
    assert plain.headers["etag"] == compressed.headers["etag"]
    assert plain.headers["etag"].startswith("W/")  # a strong one would promise the same bytes
    for encoding in ("gzip", "identity"):
        known = client.get(path, headers={"if-none-match": plain.headers["etag"], "accept-encoding": encoding})
        assert (known.status_code, known.content) == (304, b"")
        assert "content-encoding" not in known.headers
    for answer in (plain, compressed, known):
        assert answer.headers["vary"].lower().split(", ").count("accept-encoding") == 1


def test_archives_files_and_streams_are_sent_as_they_are(client: httpx.Client, measured: Claim) -> None:
    folder = settings().run_folder(measured.job_id) / "checkpoints" / "step_3"
    folder.mkdir(parents=True)
    for name, content in (("COMPLETE", ""), ("model.safetensors", "0" * 5000)):
        (folder / name).write_text(content)
    with transaction() as session:
        store_checkpoint(session, measured, 3, "checkpoints/step_3", final=False, validation_reward=None)
    archive, _ = raw(client, f"/v1/jobs/{measured.job_id}/checkpoints/3/archive")
    assert ("content-encoding" in archive.headers, archive.headers["content-type"]) == (False, "application/x-tar")

    rows = b'{"problem": "1+1=", "answer": "2"}\n' * 100
    made: Json = client.post("/v1/files", files={"file": ("rows.jsonl", rows)}).json()
    file, sent = raw(client, f"/v1/files/{made['id']}/content")
    assert ("content-encoding" in file.headers, sent) == (False, rows)
    part, sent = raw(client, f"/v1/files/{made['id']}/content", range="bytes=0-1499")
    assert (part.status_code, sent) == (206, rows[:1500])

    asked: dict[str, Any] = {"headers": {"accept-encoding": "gzip"}}
    with client.stream("GET", f"/v1/jobs/{measured.job_id}/stream", **asked) as stream:
        assert "content-encoding" not in stream.headers
        first = next(stream.iter_raw())  # nothing waits for more
        assert first.startswith(b"retry:")
