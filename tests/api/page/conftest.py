"""A real browser over a real API."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.conftest import ApiServer

ARTIFACTS = Path(__file__).parents[3] / "artifacts" / "page"
WIDTHS = (1280, 380)
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_MILLISECONDS = 30_000
_TOO_WIDE = """width => document.documentElement.scrollWidth <= width ? [] :
  [...document.querySelectorAll("main *")].filter(each => !each.closest(".scroll"))
    .filter(each => each.getBoundingClientRect().right > width)
    .map(each => each.outerHTML.slice(0, 120)).concat(document.documentElement.scrollWidth)"""
expect.set_options(timeout=_MILLISECONDS)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Headless Chromium of this machine. One a module: its event loop must not stay when other tests want their own."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=list(_ARGUMENTS))
        yield launched
        launched.close()


class Tab:
    """A page of a browser, and all that it complained of."""

    def __init__(self, page: Page, url: str) -> None:
        self.page = page
        self.url = url
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()
        page.set_default_timeout(_MILLISECONDS)
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self._complain("error", str(error)))

    def _complain(self, kind: str, text: str) -> None:
        if kind in ("error", "warning") and not any(part in text for part in self.expected):
            self.complaints.append(text)

    def open(self, path: str) -> Page:
        self.page.goto(f"{self.url}{path}")
        return self.page

    def photograph(self, name: str) -> None:
        """The whole page in both widths and dark, for a person to look at; nothing is too wide, and axe is content."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        for width in WIDTHS:
            self.page.set_viewport_size({"width": width, "height": 900})
            self._drawn()
            self.page.screenshot(path=ARTIFACTS / f"{name}-{width}.png", full_page=True)
            wide = self.page.evaluate(_TOO_WIDE, width)
            assert wide == [], f"{name} is wider than a window of {width} px"
        self.page.set_viewport_size({"width": WIDTHS[0], "height": 900})
        self.audit(f"{name}, light")
        self.page.emulate_media(color_scheme="dark")
        self._drawn()
        self.page.screenshot(path=ARTIFACTS / f"{name}-dark.png", full_page=True)
        self.audit(f"{name}, dark")
        self.page.emulate_media(color_scheme="light")

    def audit(self, name: str) -> None:
        """axe finds nothing serious."""
        found = Axe().run(self.page).response["violations"]
        serious = [
            (rule["id"], rule["help"], [node["html"][:160] for node in rule["nodes"][:3]])
            for rule in found
            if rule["impact"] in ("serious", "critical")
        ]
        assert serious == [], name

    def _drawn(self) -> None:
        self.page.evaluate("window.scrollTo(0, 0)")
        frames = "new Promise(done => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))"
        self.page.wait_for_function(frames)


@pytest.fixture
def new_tab(browser: Browser) -> Iterator[Callable[[ApiServer], Tab]]:
    """Opens a tab on a server; at the end none may have complained: no violated policy, no failed script."""
    opened: list[Tab] = []

    def make(server: ApiServer) -> Tab:
        context = browser.new_context(viewport={"width": WIDTHS[0], "height": 900}, color_scheme="light")
        opened.append(Tab(context.new_page(), server.url))
        return opened[-1]

    yield make
    for tab in opened:
        tab.page.context.close()
        assert tab.complaints == []


@pytest.fixture
def tab(client: object, new_tab: Callable[[ApiServer], Tab], shared_api: ApiServer) -> Tab:
    """A tab on the API over an empty record."""
    return new_tab(shared_api)
