"""A job sent in the page's form, trained by a real worker, and watched in a real browser to its end."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.api.page.conftest import Tab, browser, new_tab  # noqa: F401  # fixtures
from tests.conftest import ApiServer
from tests.service.conftest import PATIENCE, Spec, StartWorker


@pytest.mark.slow
def test_a_job_is_sent_in_the_form_and_its_curve_watched_to_the_end(
    api: ApiServer,
    start_worker: StartWorker,
    spec: Spec,
    new_tab: Callable[[ApiServer], Tab],  # noqa: F811
) -> None:
    tab = new_tab(api)
    tab.expected = ("422",)
    page = tab.open("/jobs/new")
    page.locator("#spec").fill(json.dumps({**spec, "name": "from the form"}))
    expect(page.locator("#verdict")).to_contain_text("This can run: 6 steps, 48 completions.")
    page.get_by_role("button", name="Start the job").click()
    expect(page.locator("#status")).to_contain_text("Queued")
    start_worker()
    patience = PATIENCE * 1000
    expect(page.locator('[data-panel="Reward"] .drawing')).to_have_attribute("data-last-step", "6", timeout=patience)
    expect(page.locator("#status")).to_have_text("Succeeded", timeout=patience)
    expect(page.locator(".facts")).to_contain_text("6 of 6")
    page.locator("#rollouts").scroll_into_view_if_needed()
    expect(page.locator("#rollouts")).to_contain_text("Step 6: 2 prompts, 8 completions")
    page.get_by_label("Colour by").select_option("learner less engine")
    expect(page.locator("#rollouts article").first.locator("mark")).not_to_have_count(0)
