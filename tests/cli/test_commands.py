"""The commands against a real API: what they print, how they fail, how they exit."""

import json
import socket
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from subprocess import run as run_process
from typing import Any

import pytest

from api.database import transaction
from api.models import Status
from api.reason import Fault, Reason
from api.record import claim_job, finish
from cli.clone import patch
from cli.errors import CliError
from cli.stack import free_port
from tests.cli.command import mhpo

pytestmark = pytest.mark.slow  # many short processes


def written(folder: Path, spec: Any) -> str:
    path = folder / "job.json"
    path.write_text(json.dumps(spec))
    return str(path)


def test_a_job_is_submitted_listed_cancelled_and_watched(url: str, spec: dict[str, Any], tmp_path: Path) -> None:
    submitted = mhpo("submit", written(tmp_path, spec), "--url", url)
    assert submitted.returncode == 0, submitted.stderr
    job_id, status = submitted.stdout.splitlines()[0].split()
    assert status == "queued"
    assert submitted.stdout.splitlines()[1] == f"watch it: mhpo watch {job_id}"

    listed = mhpo("jobs", "--url", url)
    assert listed.stdout.splitlines()[0].split() == ["job", "name", "status", "step", "age", "reason"]
    assert listed.stdout.splitlines()[1].split()[:4] == [job_id, "sums", "queued", "0/100"]

    assert mhpo("cancel", job_id, MHPO_URL=url).stdout == f"{job_id} cancelled\n"

    watched = mhpo("watch", job_id, "--url", url)
    assert watched.returncode == 3
    assert watched.stdout.splitlines()[-1].startswith("step 0/100 0% | cancelled")
    again = mhpo("cancel", job_id, "--url", url, "--json")
    assert (again.returncode, again.stdout) == (8, "")
    assert json.loads(again.stderr)["error"]["code"] == "job_ended"


def test_a_job_is_paused_resumed_retried_and_cloned(url: str, spec: dict[str, Any], tmp_path: Path) -> None:
    job_id = mhpo("submit", written(tmp_path, spec), "--url", url).stdout.split()[0]
    assert mhpo("pause", job_id, MHPO_URL=url).stdout == f"{job_id} paused\n"
    assert mhpo("resume", job_id, MHPO_URL=url).stdout == f"{job_id} queued\n"
    early = mhpo("retry", job_id, "--url", url)
    assert (early.returncode, early.stderr) == (
        8,
        "mhpo: only a failed or cancelled job can be retried; this one is queued\n",
    )
    assert json.loads(mhpo("cancel", job_id, "--url", url, "--json").stdout)["status"] == "cancelled"
    again = json.loads(mhpo("retry", job_id, "--url", url, "--json").stdout)
    assert (again["parent_id"], again["diff"]) == (job_id, [])
    cloned = mhpo("clone", again["id"], "optimizer.lr=2e-5", "name=second try", "--url", url).stdout.splitlines()
    assert cloned[0].endswith(" queued")
    assert cloned[1:3] == ['  name: "sums" -> "second try"', "  optimizer.lr: 1e-06 -> 2e-05"]
    refused = mhpo("clone", job_id, "optimizer.lr=fast", "--url", url)
    assert (refused.returncode, refused.stderr.partition(":")[2].strip().partition(":")[0]) == (4, "optimizer.lr")


@pytest.mark.parametrize(
    ("changes", "made"),
    [
        (["a.b=1", "a.c=[1, true]", "d=null"], {"a": {"b": 1, "c": [1, True]}, "d": None}),
        (["name=x=y", "text=NaN", "empty="], {"name": "x=y", "text": "NaN", "empty": ""}),
    ],
)
def test_changes_become_a_merge_patch(changes: list[str], made: dict[str, Any]) -> None:
    assert patch(changes) == made


@pytest.mark.parametrize("changes", [["lr"], ["=1"], ["a..b=1"], ["a=1", "a.b=2"], ["a.b=2", "a=1"], ["a=1", "a=2"]])
def test_what_is_no_change_is_refused(changes: list[str]) -> None:
    with pytest.raises(CliError):
        patch(changes)


def test_follow_ends_with_the_job(url: str, spec: dict[str, Any], tmp_path: Path) -> None:
    path = written(tmp_path, spec)
    cancelled: list[str] = []

    def cancel_when_there() -> None:
        while not cancelled:
            cancelled.extend(mhpo("jobs", "--status", "queued", "--url", url, "--quiet").stdout.split())
        mhpo("cancel", cancelled[0], "--url", url)

    canceller = threading.Thread(target=cancel_when_there)
    canceller.start()
    followed = mhpo("submit", path, "--follow", "--url", url, "--json")
    canceller.join()

    assert followed.returncode == 3
    lines = [json.loads(line) for line in followed.stdout.splitlines()]
    assert lines[0]["status"] == "queued"
    assert lines[-1]["id"] == cancelled[0]
    assert lines[-1]["status"] == "cancelled"
    assert lines[-1]["spec"]["name"] == "sums"
    assert {line["object"] for line in lines} == {"job", "job.status", "event"}
    events = [line["data"]["status"] for line in lines if line["object"] == "event"]
    assert events == ["queued", "cancelled"]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"optimizer": {"lr": -1.0}}, "mhpo: optimizer.lr: Input should be greater than 0; got -1.0\n"),
        ({"rollout": {"group_size": 1}}, "mhpo: rollout.group_size: Input should be greater than or equal to 2; got 1\n"),
        ({"stepz": 3}, "mhpo: stepz: unknown key 'stepz'; did you mean 'steps'?\n"),
        ({"dataset": {"path": "./absent.jsonl"}}, "mhpo: dataset.path: "),
    ],
)
def test_a_refusal_is_one_sentence_with_its_place(
    url: str, spec: dict[str, Any], tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    refused = mhpo("submit", written(tmp_path, spec | change), "--url", url)

    assert refused.returncode == 4
    assert refused.stdout == ""
    assert refused.stderr.startswith(sentence)
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("job.toml", "steps = ", "mhpo: cannot read {path}: Invalid value (at end of document)\n"),
        ("job.json", "[1]", "mhpo: {path} holds no object\n"),
        ("absent.toml", None, "mhpo: cannot read {path}: [Errno 2] No such file or directory: '{path}'\n"),
    ],
)
def test_a_spec_that_cannot_be_read(tmp_path: Path, name: str, text: str | None, sentence: str) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_text(text)
    refused = mhpo("submit", str(path), "--url", "http://127.0.0.1:9")

    assert (refused.returncode, refused.stderr) == (4, sentence.format(path=path))


def test_no_job_yet(url: str) -> None:
    assert mhpo("jobs", "--url", url).stdout == "no job yet; submit one: mhpo submit examples/first-run.toml\n"
    assert mhpo("jobs", "--url", url, "--json").stdout == ""


@pytest.mark.parametrize("command", [("watch",), ("pause",), ("plot",), ("logs", "--follow")])
def test_an_unknown_job(url: str, command: tuple[str, ...]) -> None:
    refused = mhpo(*command, "job-nowhere", "--url", url)

    assert (refused.returncode, refused.stderr) == (6, "mhpo: no job has the id 'job-nowhere'; `mhpo jobs` lists them\n")


def test_an_unknown_status(url: str) -> None:
    refused = mhpo("jobs", "--status", "asleep", "--url", url)

    assert refused.returncode == 4
    assert refused.stderr.startswith("mhpo: status: Input should be 'validating_files', 'queued'")


def test_no_service() -> None:
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    refused = mhpo("jobs", "--url", url)

    assert refused.returncode == 5
    assert refused.stderr == f"mhpo: no service at {url}; start it with `mhpo up`, or name another with --url\n"


class OtherService(BaseHTTPRequestHandler):
    """Answers `/N/...` with the status N and a page."""

    def do_GET(self) -> None:
        self.send_response(int(self.path.split("/")[1]))
        self.end_headers()
        self.wfile.write(b"<html>a page</html>")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
        pass


@pytest.fixture
def other_service() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), OtherService) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_an_answer_that_is_not_the_services(other_service: str) -> None:
    refused = mhpo("jobs", "--url", f"{other_service}/502")

    assert refused.returncode == 5
    assert refused.stderr == f"mhpo: {other_service}/502/v1/jobs?limit=100 answered 502 Bad Gateway: <html>a page</html>\n"

    unheard_of = mhpo("jobs", "--url", f"{other_service}/520")
    assert unheard_of.stderr == f"mhpo: {other_service}/520/v1/jobs?limit=100 answered 520: <html>a page</html>\n"

    page = mhpo("jobs", "--url", f"{other_service}/200")
    assert (page.returncode, page.stderr) == (5, f"mhpo: what answers at {other_service}/200 is no mhpo service\n")


@pytest.mark.parametrize("metric", ["rewrd", "reward,loss", ""])
def test_a_metric_that_is_not_there(url: str, spec: dict[str, Any], tmp_path: Path, metric: str) -> None:
    job_id = mhpo("submit", written(tmp_path, spec), "--url", url).stdout.split()[0]
    refused = mhpo("plot", job_id, "--metric", metric, "--url", url)

    assert (refused.returncode, refused.stderr) == (6, f"mhpo: {job_id} has no metric {metric!r}; it has: no metric yet\n")


def test_a_reason_of_many_lines_is_one_line_in_the_list(url: str, spec: dict[str, Any], tmp_path: Path) -> None:
    job_id = mhpo("submit", written(tmp_path, spec), "--url", url).stdout.split()[0]
    with transaction() as session:
        claim = claim_job(session, job_id, "worker-1")
        assert claim is not None
        finish(session, claim, Status.FAILED, Reason("engine", Fault.SYSTEM, "It broke.\nTraceback:\n  line 1"))
    assert mhpo("jobs", "--url", url).stdout.splitlines()[1].endswith("It broke.")
    assert len(mhpo("jobs", "--url", url).stdout.splitlines()) == 2
    assert mhpo("watch", job_id, "--url", url).stdout.splitlines()[-1].endswith("failed: It broke.")


def test_a_setting_that_is_no_number() -> None:
    refused = mhpo("up", MHPO_PORT="eighty")

    assert refused.returncode == 4
    assert refused.stderr.startswith("mhpo: MHPO_PORT: Input should be a valid integer")


def test_heartbeats_that_come_too_seldom_to_keep_a_lease() -> None:
    refused = mhpo("up", MHPO_LEASE_SECONDS="15", MHPO_HEARTBEAT_SECONDS="8")

    assert refused.returncode == 4
    assert refused.stderr.startswith("mhpo: MHPO_HEARTBEAT_SECONDS: must be at most half of MHPO_LEASE_SECONDS")


def test_a_folder_and_a_host_that_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = mhpo("up", "--data-dir", str(tmp_path / "file" / "data"), "--port", "0")
    assert folder.returncode == 1
    assert folder.stderr.startswith(f"mhpo: cannot keep data in {tmp_path}/file/data: Not a directory;")

    host = mhpo("up", "--data-dir", str(tmp_path), "--port", "0", "--host", "192.0.2.1")
    assert host.returncode == 1
    assert host.stderr.startswith("mhpo: cannot listen on 192.0.2.1:0: ")


def test_help_imports_nothing_slow() -> None:
    script = "import sys, cli.main; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = set(run_process([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout.split())

    assert "typer" in loaded
    assert not loaded & {
        "torch",
        "vllm",
        "transformers",
        "sqlalchemy",
        "celery",
        "fastapi",
        "pydantic",
        "httpx",
        "psycopg",
        "redis",
    }


def test_a_port_that_is_free_can_be_listened_on() -> None:
    with socket.create_server(("127.0.0.1", free_port("127.0.0.1"))) as listener:
        assert listener.getsockname()[1] > 0
