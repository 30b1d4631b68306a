"""What the page's documents show before any script has run, and to whom."""

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import update

from api.database import transaction
from api.models import Job, Status
from api.page.words import age
from api.reason import Fault, Reason
from api.record import Claim, finish, request_cancel
from tests.api.locked import client_of
from tests.api.page import a_run
from tests.conftest import ApiServer

Running = Callable[..., Claim]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def claim(running: Running) -> Claim:
    """A run of 200 steps that is at its 80th."""
    made = running(name="first sums", steps=200)
    a_run.record_steps(made, 1, 80, step_time=3.0, reward_std=0.25)
    return made


def facts(document: str) -> dict[str, str]:
    return dict(re.findall(r"<dt>([^<]*)</dt><dd>([^<]*)</dd>", document))


def buttons(document: str) -> list[str]:
    return re.findall(r'data-action="(\w+)"', document)


def test_the_list_shows_jobs_with_their_reward(client: httpx.Client, claim: Claim, new_job: Callable[..., str]) -> None:
    waiting = new_job(name="second")
    document = client.get("/").text
    second, first = re.findall(r"<tr data-job.*?</tr>", document, re.DOTALL)
    assert f'data-job="{waiting}"' in second
    assert "Queued" in second
    assert "<svg" not in second
    assert "80 of 200, 6 min 0 s left" in first
    [path] = re.findall(r'<path d="M([^"]*)"', first)
    points = [tuple(map(float, point.split())) for point in path.split("L")]
    assert (points[0][0], points[-1][0], len(points)) == (0.0, 130.0, 41)
    assert points[-1][1] < points[0][1], "the reward rose"
    assert first in client.get("/fragments/jobs").text, "the scripts get the same"


def test_a_run_is_shown_with_its_state_and_its_reward(client: httpx.Client, claim: Claim) -> None:
    a_run.record_event(claim, "warn", "staleness", "the sampler waited 3 s for weights", 1)
    a_run.record_steps(claim, 81, 81, reward=0.625, step_time=3.0)
    document = client.get(f"/jobs/{claim.job_id}").text
    shown = facts(document)
    assert shown.pop("Running").endswith(" s")
    assert shown == {
        "Step": "81 of 200",
        "Time left": "about 5 min 57 s",
        "Attempt": "1",
        "Algorithm": "mhpo",
        "Reward": "0.625",
    }
    assert 'data-last-step="81"' in document
    assert document.count("<path") == 2, "the curve and its band"
    assert "the sampler waited 3 s for weights" in document
    assert buttons(document) == ["pause", "cancel"]
    fragment = client.get(f"/fragments/jobs/{claim.job_id}").text
    assert fragment[fragment.index("<section") :].strip() in document, "the scripts get the same"


def test_what_can_be_done_follows_the_status(client: httpx.Client, claim: Claim, new_job: Callable[..., str]) -> None:
    with transaction() as session:
        request_cancel(session, claim.job_id)
    document = client.get(f"/jobs/{claim.job_id}").text
    assert buttons(document) == ["pause"]
    assert "It was asked to stop" in document
    with transaction() as session:
        finish(session, claim, Status.FAILED, Reason("trainer_error", Fault.SYSTEM, "out of memory"))
    document = client.get(f"/jobs/{claim.job_id}").text
    assert buttons(document) == ["retry"]
    assert "out of memory" in document
    assert "(a fault of this service)" in document
    assert "Took" in facts(document)
    assert "No step is done yet" in client.get(f"/jobs/{new_job()}").text


def test_text_is_never_markup(client: httpx.Client, running: Running) -> None:
    claim = running(name=HOSTILE)
    a_run.record_steps(claim, 1, 2)
    a_run.record_event(claim, "warn", "staleness", HOSTILE, 1)
    with transaction() as session:
        finish(session, claim, Status.FAILED, Reason("trainer_error", Fault.USER, HOSTILE))
    for address in ("/", f"/jobs/{claim.job_id}", "/fragments/jobs", f"/fragments/jobs/{claim.job_id}"):
        text = client.get(address).text
        assert "&lt;img src=x" in text
        assert "<img" not in text


def test_a_document_shows_jobs_only_to_who_needs_no_key(client: httpx.Client, locked: ApiServer, claim: Claim) -> None:
    for address in ("/", f"/jobs/{claim.job_id}"):
        assert "first sums" in client.get(address).text
        for headers in ({"host": "evil.example"}, {"x-forwarded-for": "10.0.0.7"}):
            strange = client.get(address, headers=headers)
            assert strange.status_code == 200
            assert "first sums" not in strange.text, "a name that was made to point here, or a proxy"
            assert claim.job_id not in strange.text
        with client_of(locked) as holder:
            assert "first sums" not in holder.get(address).text, "scripts ask for it with the key"
            assert "first sums" in holder.get(f"/fragments{address if address != '/' else '/jobs'}").text


def test_a_page_of_jobs_is_followed_by_the_next(client: httpx.Client, new_job: Callable[..., str]) -> None:
    ids = [new_job(name=f"number {n}") for n in range(52)]
    first = client.get("/fragments/jobs").text
    assert re.findall(r'data-job="([\w-]+)"', first) == ids[:1:-1]
    assert "data-more" in first
    rest = client.get("/fragments/jobs", params={"after": ids[2]}).text
    assert re.findall(r'data-job="([\w-]+)"', rest) == [ids[1], ids[0]]
    assert "data-more" not in rest
    assert "<tr data-job" not in client.get("/fragments/jobs", params={"status": "running"}).text
    assert client.get("/fragments/jobs", params={"status": "odd"}).status_code == 422
    assert client.get("/fragments/jobs", params={"after": "job-aaaaaaaaaaaaaaaaaaaaaaaa"}).status_code == 404


def test_a_document_comes_whatever_is_in_the_record(client: httpx.Client, running: Running) -> None:
    claim = running(name="odd")
    a_run.record_steps(claim, 1, 2)
    with transaction() as session:
        session.execute(update(Job).where(Job.id == claim.job_id).values(status_reason={"code": "odd"}))
    for address in ("/", f"/jobs/{claim.job_id}"):
        answer = client.get(address)
        assert answer.status_code == 200
        assert "start.js" in answer.text


def test_a_job_with_numbers_of_any_size_is_shown_beside_the_others(client: httpx.Client, running: Running) -> None:
    running(name="usual")
    a_run.record_steps(running(name="odd"), 1, 60, reward=1e308, step_time=1e308, loss=-1e308)
    for address in ("/", "/fragments/jobs"):
        shown = client.get(address).text
        assert ("usual" in shown, "odd" in shown) == (True, True)


def test_an_age_is_said_in_its_largest_unit() -> None:
    now = datetime.now(UTC)
    times = (59, 60, 3599, 3600, 86400 * 3)
    assert [age(now - timedelta(seconds=each), now) for each in times] == [
        "just now",
        "1 min ago",
        "59 min ago",
        "1 h ago",
        "3 d ago",
    ]
