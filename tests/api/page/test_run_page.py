"""The page of a run in a real browser: what is drawn, and that it goes on whatever happens to the connection."""

import signal
import threading
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, expect

from api.database import transaction
from api.models import Json, Status
from api.record import Claim, finish
from api.settings import settings
from tests.api.page import a_run
from tests.api.page.conftest import Tab
from tests.conftest import ASLEEP, ApiServer, api_server, wait_until

Running = Callable[..., Claim]
NewTab = Callable[[ApiServer], Tab]

pytestmark = pytest.mark.slow


def seen(page: Page, part: str) -> Locator:
    """A part of the page, which is read when one comes to it."""
    found = page.locator(f"#{part}")

    def is_read() -> bool:
        found.scroll_into_view_if_needed()
        return "Loading…" not in found.inner_text()

    wait_until(is_read)
    return found


def last_step(page: Page, panel: str, step: int) -> None:
    """The panel's curve ends at `step`, and has ink."""
    drawing = page.locator(f'[data-panel="{panel}"] .drawing')
    expect(page.locator(".outline")).to_have_count(0)  # the charts have taken the place of what the service drew

    def is_drawn() -> bool:
        drawing.scroll_into_view_if_needed()
        return drawing.get_attribute("data-last-step") == str(step)

    wait_until(is_drawn)
    expect(drawing.locator("canvas")).to_be_visible()


@pytest.fixture
def claim(running: Running, spec: Json) -> Claim:
    """A run of 200 steps that is at its 80th."""
    graders = [{"type": "exact"}, {"type": "length", "name": "short", "target": 10, "limit": 90}]
    evaluation = {"benchmarks": [spec["dataset"]["path"]], "every": 1}
    made = running(name="sums, two graders", steps=200, rewards=graders, checkpoints={"every": 40}, evaluation=evaluation)
    a_run.record_steps(made, 1, 39)
    a_run.record_steps(made, 40, 40, **{"eval/sums/avg": 0.55, "eval/sums/ci_low": 0.47, "eval/sums/ci_high": 0.63})
    a_run.record_steps(made, 41, 80)
    a_run.record_samples(made, 80)
    a_run.append_log(made, "".join(f"step {n} done\n" for n in range(1, 81)))
    a_run.record_event(made, "warn", "staleness", "the sampler waited 3 s for weights", 1)
    a_run.record_checkpoint(made, 40)
    a_run.record_checkpoint(made, 80)
    a_run.score_evaluations(made, {0: 0.31, 40: 0.55})
    return made


_TIMES_READ = """() => [...document.querySelectorAll('link[as="fetch"]')]
  .map(link => performance.getEntriesByName(link.href, "resource").length)"""


def test_a_run_at_a_glance(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    for panel in ("Reward", "Reward by grader", "Importance ratio", "Survival weight by side", "Time of a step"):
        last_step(page, panel, 80)
    assert page.evaluate(_TIMES_READ) == [1, 1], "what the document asks for is what the page reads, and is not asked again"
    expect(page.locator("#status")).to_contain_text("Running")
    expect(page.locator(".facts")).to_contain_text("80 of 200")
    expect(page.locator(".connection")).to_have_text("live")
    expect(seen(page, "scores")).to_contain_text("55.0 %")
    expect(seen(page, "checkpoints")).to_contain_text("step_80")
    expect(seen(page, "events")).to_contain_text("the sampler waited 3 s")
    expect(seen(page, "log").locator("pre")).to_contain_text("step 80 done")
    last_step(page, "Benchmark sums", 40)
    tab.photograph("run")


def test_a_run_is_read_before_any_script_has_run(browser: Browser, shared_api: ApiServer, claim: Claim) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    for address in ("/", f"/jobs/{claim.job_id}"):
        page.goto(f"{shared_api.url}{address}")
        expect(page.locator("main")).to_contain_text("80 of 200")
        expect(page.locator(".spark, .outline svg").first).to_be_visible()
    expect(page.locator('[data-warning="staleness"]')).to_be_visible()
    context.close()


def test_what_the_service_drew_is_where_the_charts_come(tab: Tab, claim: Claim) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    tab.page.route("**/vendor/**", hold)
    page = tab.open(f"/jobs/{claim.job_id}")
    expect(page.locator(".outline")).to_be_visible()
    parts = (".head", ".jumps", '[data-panel="Reward"] .drawing')
    places = [page.locator(part).bounding_box() for part in parts]
    wait_until(lambda: page.evaluate("true") and held)
    for route in held:
        route.continue_()
    last_step(page, "Reward", 80)
    expect(page.locator(".outline")).to_have_count(0)
    assert [page.locator(part).bounding_box() for part in parts] == places


def test_warnings_come_with_the_steps_and_lead_to_their_curve(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    expect(page.locator('[data-warning="staleness"]')).to_contain_text("the sampler waited 3 s for weights (at step 1)")
    expect(page.locator('[data-warning="kl_grows"]')).to_have_count(0)
    a_run.record_steps(claim, 81, 86, kl=1.7)
    warning = page.locator('[data-warning="kl_grows"]')
    expect(warning).to_contain_text("The KL from the base model is 1.70 nats a token")
    warning.get_by_role("button", name="Show the curve").click()
    expect(page.locator('[data-panel="KL"]')).to_be_focused()
    expect(page.locator('[data-panel="KL"]')).to_be_in_viewport()


def test_a_state_that_could_not_be_read_is_read_again_and_none_overtakes_a_newer_one(tab: Tab, claim: Claim) -> None:
    tab.expected = ("503",)
    page = tab.open(f"/jobs/{claim.job_id}")
    last_step(page, "Reward", 80)
    expect(page.locator(".connection")).to_have_text("live")
    held: list[Route] = []
    away = threading.Event()

    def answer(route: Route) -> None:
        if not held:
            held.append(route)
        elif away.is_set():
            route.fulfill(status=503, json={"error": {"message": "Away.", "code": "away"}})
        else:
            route.continue_()

    page.route("**/fragments/**", answer)
    a_run.record_steps(claim, 81, 81)
    wait_until(lambda: page.evaluate("true") and held)
    with transaction() as session:
        finish(session, claim, Status.SUCCEEDED, None)
    expect(page.locator(".facts")).to_contain_text("80 of 200")  # another reading waits for the first
    away.set()
    held[0].continue_()
    expect(page.locator("#stale")).to_contain_text("The run's state could not be read: Away.")
    away.clear()
    expect(page.locator("#status")).to_contain_text("Succeeded")
    expect(page.locator("#stale")).to_be_empty()


def test_why_an_action_failed_stays_while_the_run_goes_on(tab: Tab, claim: Claim) -> None:
    tab.expected = ("409",)
    page = tab.open(f"/jobs/{claim.job_id}")
    expect(page.locator(".connection")).to_have_text("live")
    refused = {"error": {"message": "It cannot be paused now.", "code": "wrong_status"}}
    page.route("**/pause", lambda route: route.fulfill(status=409, json=refused))
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#said")).to_have_text("It cannot be paused now.")
    a_run.record_steps(claim, 81, 81)
    expect(page.locator(".facts")).to_contain_text("81 of 200")
    expect(page.locator("#said")).to_have_text("It cannot be paused now.")


def test_curves_are_read_by_keyboard(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    for panel in ("Reward by grader", "Reward"):
        last_step(page, panel, 80)
    page.locator('[data-panel="Reward"] .drawing').focus()
    page.keyboard.press("Home")
    expect(page.locator('[data-panel="Reward"] .legend')).to_contain_text("at step 1")
    page.keyboard.press("ArrowRight")
    for panel in ("Reward", "Reward by grader"):  # the cursor is that of all panels
        expect(page.locator(f'[data-panel="{panel}"] .legend')).to_contain_text("at step 2")
    page.keyboard.press("+")
    last_step(page, "Entropy", 21)
    page.keyboard.press("-")
    last_step(page, "Entropy", 80)


@pytest.mark.parametrize("half", ["step 81 do", pytest.param("81" * 40_000, id="longer than one look")])
def test_a_log_line_that_was_half_written_is_shown_whole(tab: Tab, claim: Claim, half: str) -> None:
    a_run.append_log(claim, half)
    page = tab.open(f"/jobs/{claim.job_id}")
    expect(page.locator(".connection")).to_have_text("live")
    lines = seen(page, "log").locator("pre")
    expect(lines).to_contain_text(half)
    a_run.append_log(claim, "ne\nstep 82 done\n")
    expect(lines).to_contain_text("step 82 done")
    assert (lines.text_content() or "").endswith(f"step 80 done\n{half}ne\nstep 82 done\n")


def test_curves_grow_as_steps_are_stored_and_after_a_reload(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    last_step(page, "Reward", 80)
    a_run.record_steps(claim, 81, 83)
    a_run.append_log(claim, "step 83 done\n")
    last_step(page, "Reward", 83)
    expect(page.locator(".facts")).to_contain_text("83 of 200")
    expect(seen(page, "log").locator("pre")).to_contain_text("step 83 done")
    page.reload()
    last_step(page, "Reward", 83)
    a_run.record_steps(claim, 84, 84)
    last_step(page, "Reward", 84)
    expect(page.locator('[data-panel="Reward"] .drawing')).to_have_attribute("data-points", "84")


def test_a_broken_connection_is_caught_up(new_tab: NewTab, claim: Claim) -> None:
    log = settings().data_dir / "logs" / "page-api.log"
    with api_server(log, **ASLEEP) as first:
        tab = new_tab(first)
        tab.expected = ("net::ERR_",)
        page = tab.open(f"/jobs/{claim.job_id}")
        last_step(page, "Reward", 80)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        expect(page.locator(".connection")).to_contain_text("disconnected")
        page.evaluate("window.stillTheSame = true")
        a_run.record_steps(claim, 81, 86)
        port = first.url.rsplit(":", 1)[1]
        with api_server(log.with_name("page-api-again.log"), MHPO_PORT=port, **ASLEEP):
            last_step(page, "Reward", 86)
            expect(page.locator(".connection")).to_have_text("live")
            expect(page.locator('[data-panel="Reward"] .drawing')).to_have_attribute("data-points", "86")
            assert page.evaluate("window.stillTheSame") is True
            page.close()


def test_rollouts_are_read_side_by_side(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    rollouts = seen(page, "rollouts")
    expect(rollouts).to_contain_text("Step 80: 3 prompts, 12 completions")
    expect(rollouts.locator(".asked").first).to_contain_text("<b>Think</b>")  # text of a model is never markup
    expect(rollouts.locator("article").first).to_contain_text("advantage +0.7")
    marks = rollouts.locator("article").first.locator("mark")
    expect(marks).to_have_count(0)
    page.get_by_label("Colour by").select_option("log-ratio")
    expect(marks).to_have_count(9)
    colours = marks.evaluate_all("each => each.map(one => getComputedStyle(one).backgroundColor)")
    assert len(set(colours)) == 9, "each token has its own strength"
    expect(marks.first).to_have_attribute("title", "log-ratio -0.08")
    expect(rollouts.locator("article").first).to_contain_text("carry one")
    tab.photograph("rollouts")
    page.get_by_label("Colour by").select_option("learner less engine")
    expect(rollouts.locator(".scale")).to_have_text("learner and engine agree")
    page.get_by_label("from", exact=True).fill("0.5")
    expect(rollouts).to_contain_text("3 prompts, 9 completions")
    page.get_by_label("from", exact=True).fill("7")
    expect(rollouts).to_contain_text("No completion of this step is like that.")
    page.get_by_label("from", exact=True).fill("")
    page.get_by_label("Step", exact=True).fill("79")
    expect(rollouts).to_contain_text("Step 79 has no rollouts kept.")


def test_curves_are_zoomed_smoothed_and_taken_away(tab: Tab, claim: Claim) -> None:
    page = tab.open(f"/jobs/{claim.job_id}")
    last_step(page, "Reward", 80)
    drawing = page.locator('[data-panel="Reward"] .u-over')
    box = drawing.bounding_box()
    assert box is not None
    expect(page.locator("#configuration")).to_be_attached()
    assert drawing.bounding_box() == box, "what is drawn does not move as the rest of the page comes"
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 50, steps=4)
    page.mouse.up()
    last_step(page, "Entropy", 40)
    page.get_by_role("button", name="Show the whole run").click()
    last_step(page, "Entropy", 80)
    for axis in ("tokens", "time"):
        page.locator("#axis").select_option(axis)
        last_step(page, "Reward", 80)
    page.get_by_label("log y").check()
    page.get_by_label("Smoothing").fill("0.9")
    with page.expect_download() as csv:
        page.get_by_role("button", name="Reward as CSV").click()
    lines = csv.value.path().read_text().splitlines()
    assert lines[0].split(",")[:3] == ["step", "time", "reward mean"]
    assert len(lines) == 81
    with page.expect_download() as png:
        page.get_by_role("button", name="Reward as PNG").click()
    assert png.value.path().read_bytes().startswith(b"\x89PNG")


def test_a_run_that_has_not_begun_and_one_that_is_not_there(tab: Tab, new_job: Callable[..., str]) -> None:
    job_id = new_job()
    page = tab.open(f"/jobs/{job_id}")
    expect(page.locator("#status")).to_contain_text("Queued")
    expect(page.locator("#curves")).to_contain_text("No step is done yet")
    expect(seen(page, "rollouts")).to_contain_text("Nothing has been sampled yet.")
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator("#status")).to_contain_text("Cancelled")
    tab.photograph("run-empty")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("#status")).to_contain_text("Queued")
    assert job_id not in page.url
    expect(page.locator("#diff")).to_have_text(f"The same as its parent's, {job_id}.")
    tab.expected = ("404",)
    tab.open("/jobs/job-aaaaaaaaaaaaaaaaaaaaaaaa")
    expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
