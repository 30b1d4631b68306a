"""The list of jobs, the field for a key and the form of a new job, in a real browser."""

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from api.database import transaction
from api.models import Json, Scope, Status
from api.page import words
from api.reason import Fault, Reason
from api.record import Claim, claim_job, finish
from api.slots import Place
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
    second = new_job(name="second", algorithm={"type": "grpo"}, resources={"device": "cuda"})
    expect(page.locator("tbody tr")).to_have_count(2)
    with transaction() as session:
        claim_job(session, second, "worker-2", Place("box", 1))
    expect(page.locator(f'[data-job="{second}"] .device')).to_have_text("cuda · worker-2 · GPU 0")
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
    row.get_by_role("link", name="first sums", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("first sums")
    expect(page.locator(".head")).to_contain_text("out of memory")


def test_what_one_presses_stays_though_the_job_moves(tab: Tab, running: Callable[..., Claim]) -> None:
    claim = running(name="moving", steps=200)
    a_run.record_steps(claim, 1, 60)
    page = tab.open("/")
    row = page.locator(f'[data-job="{claim.job_id}"]')
    expect(row.locator("svg.spark")).to_be_visible()
    row.get_by_role("link", name="moving", exact=True).hover()
    page.mouse.down()
    a_run.record_steps(claim, 61, 70)
    expect(row).to_contain_text("70 of 200")
    page.mouse.up()
    expect(page.get_by_role("heading", level=1)).to_have_text("moving")


def test_jobs_are_sorted_by_keyboard_and_show_their_warnings(
    tab: Tab, running: Callable[..., Claim], new_job: Callable[..., str]
) -> None:
    new_job(name="alpha", resources={"device": "cpu"})
    claim = running(name="gamma", steps=200)
    a_run.record_steps(claim, 1, 40, reward=0.0)
    new_job(name="beta")
    page = tab.open("/")
    names = page.locator("tbody .name a")
    expect(names).to_have_text(["beta", "gamma", "alpha"])
    expect(page.locator(f'[data-job="{claim.job_id}"]')).to_contain_text(re.compile("[12] warning"))
    expect(page.locator("tbody .device")).to_have_text(["auto", "auto · worker-1", "cpu"])
    page.get_by_role("button", name="Job", exact=True).focus()
    page.keyboard.press("Enter")
    expect(names).to_have_text(["alpha", "beta", "gamma"])
    expect(page.get_by_role("columnheader", name="Job")).to_have_attribute("aria-sort", "ascending")
    page.keyboard.press("Enter")
    expect(names).to_have_text(["gamma", "beta", "alpha"])
    page.keyboard.press("Enter")
    expect(names).to_have_text(["beta", "gamma", "alpha"])
    page.get_by_role("link", name=re.compile("warning")).click()
    expect(page.locator('[data-warning="reward_at_zero"]')).to_contain_text("Try: Read a few rollouts.")


def test_a_filter_holds_what_it_says(tab: Tab, running: Callable[..., Claim], new_job: Callable[..., str]) -> None:
    older = running(name="older")
    running(name="newer")
    new_job(name="waits")
    page = tab.open("/")
    names = page.locator("tbody .name a")
    page.locator("#status-filter").select_option("running")
    expect(names).to_have_text(["newer", "older"])
    with transaction() as session:
        finish(session, older, Status.SUCCEEDED, None)
    expect(names).to_have_text(["newer"])
    page.get_by_role("link", name="newer", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("newer")
    page.go_back()
    expect(page.locator("#status-filter")).to_have_value("")
    expect(names).to_have_text(["waits", "newer", "older"])
    tab.expected = ("net::ERR_",)
    page.route("**/fragments/jobs*", lambda route: route.abort())
    page.locator("#status-filter").select_option("failed")
    expect(page.locator("#said")).to_contain_text("Disconnected")
    page.locator("#status-filter").select_option("")
    page.get_by_label("Search").fill("a")
    expect(page.locator("#list")).to_have_text("Jobs are shown when the service answers.")
    page.unroute("**/fragments/jobs*")


def test_scripts_say_numbers_durations_and_statuses_as_the_documents_do(tab: Tab) -> None:
    numbers = [n * 10.0**e for n in (1, 1.5, 2.345, 9.995, -7.25) for e in range(-6, 9)] + [k / 16 for k in range(-16, 17)]
    seconds = [0.0, 0.0312, 0.5, 9.94, 9.97, 10.5, 59.5, 60, 75, 3599.6, 3600, 7380, 86399.6, 86400, 200_000]
    statuses = [*map(str, Status), "preempted"]
    page = tab.open("/")
    said = page.evaluate(
        """async ([numbers, seconds, statuses]) => {
          const script = document.querySelector("script[src$='start.js']").src;
          const { number, duration, statusWord, statusTone } = await import(script.replace("start", "words"));
          const counts = [numbers.map((each) => number(each)), seconds.map(duration)];
          return [...counts, statuses.map(statusWord), statuses.map(statusTone)];
        }""",
        [numbers, seconds, statuses],
    )
    assert said == [
        [words.number(each) for each in numbers],
        [words.duration(each) for each in seconds],
        [words.status_word(each) for each in statuses],
        [words.status_tone(each) for each in statuses],
    ]


def test_a_service_that_is_away_is_said_and_comes_back(tab: Tab, new_job: Callable[..., str]) -> None:
    tab.expected = ("net::ERR_",)
    new_job(name="kept")
    page = tab.open("/")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.route("**/fragments/jobs*", lambda route: route.abort())
    expect(page.locator("main")).to_contain_text("Disconnected: The service does not answer. Trying again…")
    expect(page.locator("tbody tr")).to_have_count(1)
    page.unroute("**/fragments/jobs*")
    expect(page.locator("main")).not_to_contain_text("Disconnected")


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
    verdict, editor, send = page.locator("#verdict"), page.locator("#spec"), page.get_by_role("button", name="Start the job")
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
    verdict, editor = page.locator("#verdict"), page.locator("#spec")
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


def test_the_spec_is_written_as_toml_and_keeps_what_toml_cannot_say(tab: Tab, spec: Json) -> None:
    tab.expected = ("422",)
    page = tab.open("/jobs/new")
    verdict, editor = page.locator("#verdict"), page.locator("#spec")
    editor.fill(json.dumps({**spec, "optimizer": {"lr": 1e-5, "max_grad_norm": None}}))
    page.get_by_role("button", name="TOML").click()
    expect(page.locator("#nulls")).to_contain_text("optimizer.max_grad_norm")
    written = editor.input_value()
    assert tomllib.loads(written) == {**spec, "optimizer": {"lr": 1e-5}}
    editor.fill(written.replace("steps = 10", "steps = 14 # more"))
    expect(verdict).to_contain_text("This can run: 14 steps")
    expect(page.get_by_label("steps", exact=True)).to_have_value("14")
    editor.fill("steps =")
    expect(verdict).to_contain_text("This is no TOML yet")
    editor.fill(written)
    page.get_by_label("steps", exact=True).fill("16")
    expect(editor).to_have_value(re.compile("steps = 16"))
    page.get_by_role("button", name="JSON", exact=True).click()
    assert json.loads(editor.input_value()) == {**spec, "steps": 16, "optimizer": {"lr": 1e-5, "max_grad_norm": None}}


def test_a_file_is_uploaded_looked_at_and_used(tab: Tab, spec: Json, tmp_path: Path) -> None:
    tab.expected = ("422",)
    page = tab.open("/jobs/new")
    editor, upload = page.locator("#spec"), page.get_by_label("Upload JSONL or parquet")
    editor.fill(json.dumps({**spec, "dataset": {**spec["dataset"], "prompt_template": "Work out {problem}"}}))
    expect(page.locator("#preview ol pre").first).to_have_text("Work out 0+1=")
    bad, good = tmp_path / "bad.jsonl", tmp_path / "good.jsonl"
    bad.write_text('{"problem": "1+1=", "answer": "2"}\nno JSON\n')
    upload.set_input_files(bad)
    expect(page.locator("#uploaded")).to_contain_text("bad.jsonl was not kept: line 2 of bad.jsonl is not JSON")
    good.write_text('{"problem": "5+5=", "answer": "10", "note": "<b>easy</b>"}\n' * 4)
    upload.set_input_files(good)
    expect(page.locator("#uploaded")).to_contain_text("good.jsonl: 4 rows, problem, answer, note.")
    expect(page.locator("#preview .rows")).to_contain_text("<b>easy</b>")
    expect(page.locator("#preview ol pre").first).to_have_text("Work out 5+5=")
    expect(page.locator("#verdict")).to_contain_text("This can run")
    assert json.loads(editor.input_value())["dataset"]["path"].startswith("file-")
    page.get_by_label("problem column", exact=True).fill("probem")
    expect(page.locator("#preview")).to_contain_text("did you mean 'problem'?")


def test_the_code_to_copy_makes_the_same_job(tab: Tab, client: httpx.Client, spec: Json) -> None:
    rewards = [{"type": "math"}, {"type": "length", "name": "short", "target": 10, "limit": 90, "weight": 0.5}]
    wanted = {**spec, "seed": 3, "rewards": rewards, "algorithm": {"type": "grpo"}, "optimizer": {"max_grad_norm": None}}
    tab.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = tab.open("/jobs/new")
    tab.expected = ("422",)
    page.locator("#spec").fill(json.dumps(wanted))
    expect(page.locator("#verdict")).to_contain_text("This can run")
    copied = []
    for name in ("Copy as curl", "Copy for OpenAI's client"):
        page.get_by_role("button", name=name).click()
        expect(page.get_by_role("button", name="Copied")).to_be_visible()
        copied.append(page.evaluate("navigator.clipboard.readText()"))
        expect(page.get_by_role("button", name=name)).to_be_visible()
    made = subprocess.run(["bash", "-euo", "pipefail", "-c", copied[0]], capture_output=True, text=True, check=True)
    by_curl = json.loads(made.stdout)
    environment = {**os.environ, "NO_PROXY": "*"}
    said = subprocess.run([sys.executable, "-c", copied[1]], capture_output=True, text=True, check=True, env=environment)
    by_openai = client.get(f"/v1/jobs/{said.stdout.strip()}").json()
    assert by_openai["spec"]["dataset"].pop("path").startswith("file-")
    assert by_curl["spec"]["dataset"].pop("path") == spec["dataset"]["path"]
    assert by_openai["spec"] == by_curl["spec"]


def test_a_job_is_made_out_of_another(tab: Tab, new_job: Callable[..., str]) -> None:
    job_id = new_job(name="the first", steps=33)
    page = tab.open(f"/jobs/{job_id}")
    page.get_by_role("link", name="Clone").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("New job, from the first")
    expect(page.locator("#verdict")).to_contain_text("33 steps")


def test_two_runs_are_compared(tab: Tab, running: Callable[..., Claim], spec: Json) -> None:
    evaluation = {"benchmarks": [spec["dataset"]["path"]], "every": 1}
    scored: Json = {"steps": 90, "checkpoints": {"every": 40}, "evaluation": evaluation}
    first, second = running(name="mhpo", **scored), running(name="grpo", **scored, algorithm={"type": "grpo"})
    a_run.record_steps(first, 1, 60)
    a_run.record_steps(second, 1, 40)
    for claim, score in ((first, 0.4), (second, 0.7)):
        a_run.record_checkpoint(claim, 40)
        a_run.score_evaluations(claim, {0: 0.3, 40: score})
    page = tab.open("/")
    for name in ("mhpo", "grpo"):
        page.get_by_label(f"Compare {name}", exact=True).check()
    page.get_by_role("link", name="Compare 2").click()
    drawing = page.locator('[data-panel="Reward"] .drawing')
    expect(drawing).to_have_attribute("data-last-step", "60")
    expect(page.locator('[data-panel="Reward"] .legend')).to_contain_text("2. grpo")
    expect(page.locator('[data-panel="KL from the base model"]')).to_be_hidden()  # neither run has it
    differing = page.locator(".differences tbody")
    expect(differing).to_contain_text("algorithm.type")
    expect(differing).not_to_contain_text("rollout.group_size")
    report = page.locator("#report tbody")
    expect(report).to_contain_text("to the first +30.0 points")
    expect(report.locator("td").nth(1)).to_contain_text(re.compile("p = .*: significant"))
    a_run.record_steps(second, 41, 70)
    expect(drawing).to_have_attribute("data-last-step", "70")
    expect(page.locator(".compared")).to_contain_text("step 70 of 90")
    tab.photograph("compare")
