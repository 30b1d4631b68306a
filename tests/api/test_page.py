"""What the page is made of, over HTTP: small, kept by browsers, from here alone, without a key."""

import base64
import hashlib
import re
from pathlib import Path

import httpx
import pytest

from api import page
from tests.conftest import ApiServer

STATIC = Path(page.__file__ or "").parent / "static"
FIRST_VIEW = 100_000  # bytes
ADDRESSES = ("/", "/compare", "/jobs/new", "/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa")


def test_each_address_gives_the_page_without_a_key(locked: ApiServer) -> None:
    with locked.client() as client:
        answers = [client.get(address) for address in ADDRESSES]
        assert {(answer.status_code, answer.headers["cache-control"]) for answer in answers} == {(200, "private, no-cache")}
        assert client.get("/jobs/job-bbbbbbbbbbbbbbbbbbbbbbbb").text == answers[-1].text, "nothing of a job is in it"
        [script] = re.findall(r'src="(/static/[^"]+/start\.js)"', answers[0].text)
        assert client.get(script).status_code == 200
        assert client.get("/v1/jobs").status_code == 401
        assert client.get("/fragments/jobs").status_code == 401
        assert not any('as="fetch"' in answer.text for answer in answers), "a link cannot send a key"


def test_a_document_may_use_its_own_style_and_no_other_that_is_written_in_it(client: httpx.Client) -> None:
    for address in ADDRESSES:
        answer = client.get(address)
        [style] = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
        assert policy["style-src"] == f"'self' 'sha256-{digest}'"
        assert policy["default-src"] == "'self'"
        assert ".card" in style
        assert (".u-over" in style) == (address not in ("/", "/jobs/new"))


def test_a_document_names_all_that_its_page_imports(client: httpx.Client) -> None:
    for address in ADDRESSES:
        preloaded = set(re.findall(r'rel="modulepreload" href="/static/\w+/([\w.]+)"', client.get(address).text))
        for module in preloaded:
            imported = set(re.findall(r'from "\./([\w.]+)"', (STATIC / module).read_text()))
            assert imported <= preloaded, module
    assert "run.js" in preloaded
    assert "new_job.js" not in preloaded


def test_assets_are_kept_by_a_browser_until_one_of_them_changes(client: httpx.Client) -> None:
    [version] = set(re.findall(r"/static/(\w+)/", client.get("/").text))
    script = client.get(f"/static/{version}/app.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    assert script.text == (STATIC / "app.js").read_text()
    assert client.get("/static/0123456789abcdef/app.js").status_code == 404
    assert client.get(f"/static/{version}/..%2Fserve.py").status_code == 404
    assert client.get(f"/static/{version}/app.js", headers={"accept-encoding": "identity"}).text == script.text


def test_all_of_the_page_is_less_than_a_first_view_may_be(client: httpx.Client) -> None:
    [version] = set(re.findall(r"/static/(\w+)/", client.get("/").text))
    sent = 0
    for file in STATIC.rglob("*"):
        if file.suffix in (".js", ".css", ".svg"):
            with client.stream("GET", f"/static/{version}/{file.relative_to(STATIC)}") as answer:
                assert answer.status_code == 200
                sent += sum(len(piece) for piece in answer.iter_raw())
    assert 0 < sent < FIRST_VIEW


@pytest.mark.parametrize("name", ["uplot", "smol-toml"])
def test_vendored_files_are_those_that_were_published(name: str) -> None:
    folder = STATIC / "vendor" / name
    sums = [line.split() for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert {name for _, name in sums} == {file.name for file in folder.iterdir()} - {"SHA256SUMS"}
    for digest, name in sums:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest
