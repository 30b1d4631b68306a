"""The list of jobs, the field for a key and the form of a new job, in a real browser."""

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from api.database import transaction
from api.models import Json, Scope, Status
from api.reason import Fault, Reason
from api.record import Claim, finish
from tests.api.locked import new_key
from tests.api.page import a_run
from tests.api.page.conftest import Tab
from tests.conftest import ApiServer

pytestmark = pytest.mark.slow


def test_no_job_yet(tab: Tab) -> None:
    page = tab.open("/")
    expect(page.locator("pre")).to_contain_text(f"curl {tab.url}/v1/jobs")
    tab.photograph("jobs-empty")


def test_jobs_are_seen_as_they_come_and_move(tab: Tab, running: Callable[..., Claim], new_job: Callable[..., str]) -> None:
    claim = running(name="first sums", steps=200)
    a_run.record_steps(claim, 1, 60)
    page = tab.open("/")
    row = page.locator(f'[data-job="{claim.job_id}"]')
    expect(row).to_contain_text("60 of 200")
    expect(row.locator("svg.spark")).to_be_visible()
    expect(row).to_contain_text("left")
    new_job(name="second", algorithm={"type": "grpo"})
    expect(page.locator("tbody tr")).to_have_count(2)
    with transaction() as session:
        finish(session, claim, Status.FAILED, Reason("trainer_error", Fault.SYSTEM, "out of memory: 3 GiB asked for"))
    expect(row).to_contain_text("Failed")
    expect(row).to_contain_text("out of memory")
    tab.photograph("jobs")
    page.get_by_label("Search").fill("GRPO")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Search").fill("nothing like it")
    expect(page.locator(".card")).to_have_text("No job is like that.")
    page.get_by_label("Search").fill("")
    page.locator("#status-filter").select_option("failed")
    expect(page.locator("tbody tr")).to_have_count(1)
    row.get_by_role("link").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("first sums")
    expect(page.locator(".head")).to_contain_text("out of memory")


def test_a_key_is_asked_for_and_taken_from_the_address(locked: ApiServer, new_tab: Callable[[ApiServer], Tab]) -> None:
    tab = new_tab(locked)
    tab.expected = ("401",)
    page = tab.open("/")
    page.get_by_label("API key").fill("mhpo-wrong")
    page.get_by_role("button", name="Open").click()
    expect(page.locator("form")).to_contain_text("is not known")
    tab.photograph("key")
    tab.open("/docs")
    tab.open(f"/#key={new_key(scope=Scope.WRITE)}")
    expect(page.locator("h2")).to_have_text("No job yet")
    assert "key=" not in page.url


def test_a_spec_is_checked_as_it_is_written_and_becomes_a_job(tab: Tab, spec: Json) -> None:
    tab.expected = ("422",)
    page = tab.open("/jobs/new")
    verdict, editor, send = page.locator("#verdict"), page.locator("#json"), page.get_by_role("button", name="Start the job")
    expect(verdict).to_contain_text(re.compile(r"dataset\.path: .*artifacts/sums\.jsonl"))
    expect(send).to_be_disabled()
    editor.fill(json.dumps(spec, indent=2) + ",")
    expect(verdict).to_contain_text("no JSON yet")
    editor.fill(json.dumps({**spec, "steps": 0}))
    expect(verdict).to_contain_text("steps: ")
    editor.fill(json.dumps(spec))
    expect(verdict).to_contain_text("This can run: 10 steps, 80 completions.")
    tab.photograph("new-job")
    send.click()
    expect(page.locator("#status")).to_contain_text("Queued")
    expect(page.get_by_role("heading", level=1)).to_have_text("sums")


def test_the_form_and_the_json_are_in_step(tab: Tab, spec: Json) -> None:
    tab.expected = ("422",)
    page = tab.open("/jobs/new")
    verdict, editor = page.locator("#verdict"), page.locator("#json")
    editor.fill(json.dumps(spec))
    expect(page.get_by_label("steps", exact=True)).to_have_value("10")
    page.get_by_label("steps", exact=True).fill("12")
    expect(verdict).to_contain_text("This can run: 12 steps, 96 completions.")
    page.locator('[id="f-algorithm-type"]').select_option("grpo")
    page.get_by_label("group size", exact=True).fill("1")
    field = page.locator('[data-path="rollout.group_size"]')
    expect(field.locator(".wrong")).to_contain_text("greater than or equal to 2")
    tab.photograph("new-job-fault")
    page.get_by_label("group size", exact=True).fill("")
    page.get_by_role("button", name="Add one").click()
    page.locator('[id="f-rewards.0-type"]').select_option("exact")
    expect(verdict).to_contain_text("This can run: 12 steps, 384 completions.")
    expect(field.locator(".wrong")).to_be_hidden()
    written = json.loads(editor.input_value())
    wanted = {"steps": 12, "algorithm": {"type": "grpo"}, "rollout": {"prompts_per_step": 4}, "rewards": [{"type": "exact"}]}
    assert written == {**spec, **wanted}


def test_a_job_is_made_out_of_another(tab: Tab, new_job: Callable[..., str]) -> None:
    job_id = new_job(name="the first", steps=33)
    page = tab.open(f"/jobs/{job_id}")
    page.get_by_role("link", name="Clone").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("New job, from the first")
    expect(page.locator("#verdict")).to_contain_text("33 steps")


def test_two_runs_are_compared(tab: Tab, running: Callable[..., Claim]) -> None:
    first, second = running(name="mhpo", steps=90), running(name="grpo", steps=90, algorithm={"type": "grpo"})
    a_run.record_steps(first, 1, 60)
    a_run.record_steps(second, 1, 40)
    page = tab.open("/")
    for name in ("mhpo", "grpo"):
        page.get_by_label(f"Compare {name}", exact=True).check()
    page.get_by_role("link", name="Compare 2").click()
    drawing = page.locator('[data-panel="Reward"] .drawing')
    expect(drawing).to_have_attribute("data-last-step", "60")
    expect(page.locator('[data-panel="Reward"] .legend')).to_contain_text("2. grpo")
    differing = page.locator(".differences tbody")
    expect(differing).to_contain_text("algorithm.type")
    expect(differing).not_to_contain_text("rollout.group_size")
    a_run.record_steps(second, 41, 70)
    expect(drawing).to_have_attribute("data-last-step", "70")
    expect(page.locator(".compared")).to_contain_text("step 70 of 90")
    tab.photograph("compare")
