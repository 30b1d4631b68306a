"""The page's first view in Chromium: bytes transferred, and time to useful content beside an empty page's in the same run.

    python -m benchmarks.page [--points 1000000] [--views 7]

A real record with one run of so many points under the names of an MHPO run, its events, samples and log; real PostgreSQL, one
API process, and headless Chromium of this machine on loopback. The empty page is /healthz, some bytes of JSON. Each view has a
browser context of its own, so nothing is in its cache. Useful content is, in the list of jobs, the job with its reward; on the
run's page its state and the reward's curve up to the last step. Live are the charts that scripts draw in its place. Bytes are
all that came over the wire, headers included, until nothing more is asked for. Fails where a first view takes more than 100 kB
or (median) 300 ms.
"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from playwright.sync_api import Browser, CDPSession, sync_playwright

from benchmarks.serving import own_record, serving

JOB = "job-" + "r" * 24
MOST_BYTES, MOST_MILLISECONDS = 100_000, 300
LIVE = "the run, its charts live"  # told, with no bound of its own
QUIET_MS = 700  # nothing was asked for so long: the view is complete
NAMES = (
    "reward",
    "reward_std",
    "rewards/exact/mean",
    "frac_reward_zero_std",
    "grad_norm",
    "grad_norm/on_policy",
    "kl",
    "kl/rollout",
    "ratio/mean",
    "ratio/min",
    "ratio/max",
    "ratio/log_abs_mean",
    "mhpo/psi_saturation",
    "entropy",
    "loss",
    "learning_rate",
    "mhpo/survival_mean/positive_shift",
    "mhpo/survival_mean/negative_shift",
    "sampling/probe_difference",
    "num_tokens",
    "sampling/sampling_logp_difference/mean",
    "sampling/sampling_logp_difference/max",
    "completions/mean_length",
    "completions/min_length",
    "completions/max_length",
    "completions/mean_terminated_length",
    "completions/clipped_ratio",
    "step_time",
    "time/rollout",
    "time/rewards",
    "time/learner",
    "time/sync",
    "time/other",
    "perf/tokens_per_second",
    "perf/rollout_tokens_per_second",
    "perf/memory_peak_mb",
    "grading/failed",
    "correction/weight_mean",
    "correction/weight_max",
    "multiplier/max",
)
# When the selector first matches, by the clock of the document's own navigation, after the frame that shows it.
_WATCH = """([selector]) => {
  window.useful = new Promise((resolve) => {
    const look = () => {
      if (!document.querySelector(selector)) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
    };
    const observer = new MutationObserver(look);
    observer.observe(document, { childList: true, subtree: true, attributes: true });
    look();
  });
}"""


@dataclass(frozen=True, slots=True)
class View:
    """What one first view took."""

    milliseconds: float
    bytes: int
    requests: int


def fill(points: int, spec: dict[str, Any]) -> int:
    """One run of the record, as ingest would have written it; returns its steps."""
    from sqlalchemy import text

    from api.database import engine, sessions
    from api.rollup import roll_up
    from trainer.config import JobSpec

    steps = points // len(NAMES)
    pairs = [f"'{name}', round((0.5 + 0.4 * sin(n / 4000.0) + 0.2 * random())::numeric, 6)" for name in NAMES]
    metrics = " || ".join(f"jsonb_build_object({', '.join(half)})" for half in (pairs[::2], pairs[1::2]))
    whole = json.dumps(JobSpec.parse(spec).model_dump(mode="json"))
    completion = {"text": "seven and five are twelve. " * 30, "tokens": 240, "finish_reason": "stop", "reward": 1.0}
    group = json.dumps([{**completion, "by_grader": {"exact": 1.0}, "errors": {}, "advantage": 0.5}] * 8)
    statements = f"""
        INSERT INTO jobs (id, name, spec, resolved_spec, steps, step, status, attempt, started_at, finished_at)
            VALUES (:id, 'a long run', :spec, :spec, :steps, :steps, 'succeeded', 1, now() - interval '1 day', now());
        INSERT INTO step_metrics (job_id, attempt, step, metrics, reported_at)
            SELECT :id, 1, n, {metrics}, now() + n * interval '3 seconds' FROM generate_series(1, :steps) n;
        INSERT INTO events (job_id, attempt, step, level, type, message)
            SELECT :id, 1, n / 4, CASE WHEN n % 1000 = 0 THEN 'warn' ELSE 'info' END, 'phase', 'learning'
            FROM generate_series(1, 4 * :steps) n;
        INSERT INTO samples (job_id, step, attempt, position, problem_id, prompt, answer, completions)
            SELECT :id, :steps, 1, n, n::text, 'What is 7 + 5?', '12', :group FROM generate_series(0, 15) n
    """
    with sessions().begin() as session:
        session.execute(text("SET LOCAL statement_timeout = 0; SET LOCAL transaction_timeout = 0"))
        for statement in statements.split(";"):
            session.execute(text(statement), {"id": JOB, "spec": whole, "steps": steps, "group": group})
        roll_up(session, JOB, 0, steps, appended=True)
    with engine().connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("SET statement_timeout = 0; SET transaction_timeout = 0"))
        connection.execute(text("VACUUM ANALYZE"))
    return steps


def view(browser: Browser, url: str, selector: str) -> View:
    """Open `url` with an empty cache; the time until `selector` is there and drawn, and what was transferred for the view."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        page = context.new_page()
        traffic = Traffic(context.new_cdp_session(page))
        page.add_init_script(f"({_WATCH})([{json.dumps(selector)}])")
        page.goto(url, wait_until="commit")
        milliseconds = page.evaluate("window.useful")
        while time.monotonic() - traffic.last < QUIET_MS / 1000:
            page.wait_for_timeout(50)
        return View(milliseconds, traffic.bytes, traffic.requests)
    finally:
        context.close()


class Traffic:
    """All that a page has received over the wire."""

    def __init__(self, session: CDPSession) -> None:
        self.bytes = 0
        self.requests = 0
        self.last = time.monotonic()
        self._of: dict[str, int] = {}
        session.on("Network.responseReceived", lambda event: self._set(event, event["response"]["encodedDataLength"]))
        session.on("Network.dataReceived", lambda event: self._add(event, event["encodedDataLength"]))
        session.on("Network.loadingFinished", lambda event: self._set(event, event["encodedDataLength"]))
        session.on("Network.requestWillBeSent", lambda _: self._asked())
        session.send("Network.enable")

    def _asked(self) -> None:
        self.requests += 1
        self.last = time.monotonic()

    def _add(self, event: dict[str, Any], count: int) -> None:
        self._set(event, self._of.get(event["requestId"], 0) + count)

    def _set(self, event: dict[str, Any], count: float) -> None:
        self._of[event["requestId"]] = int(count)
        self.bytes = sum(self._of.values())


def measure(browser: Browser, url: str, steps: int, views: int) -> bool:
    """Print each page's first views, in turns with the empty page's; whether all hold."""
    pages = {
        "an empty page": (f"{url}/healthz", "body"),
        "the list of jobs": (f"{url}/", f'[data-job="{JOB}"] svg.spark'),
        "the run": (f"{url}/jobs/{JOB}", f'[data-panel="Reward"] .drawing[data-last-step="{steps}"]'),
        LIVE: (f"{url}/jobs/{JOB}", f'[data-panel="Reward"] .drawing[data-last-step="{steps}"] canvas'),
    }
    for address, selector in pages.values():
        view(browser, address, selector)  # the service's first answers, and the disk's
    found: dict[str, list[View]] = {name: [] for name in pages}
    for _ in range(views):
        for name, (address, selector) in pages.items():
            found[name].append(view(browser, address, selector))
    print(f"{'first view, empty cache':26}{'median ms':>10}{'slowest':>9}{'above empty':>13}{'kB':>8}{'requests':>10}")
    empty = median(each.milliseconds for each in found["an empty page"])
    holds = True
    for name, several in found.items():
        times, most = [each.milliseconds for each in several], max(each.bytes for each in several)
        over = median(times) - empty
        requests = max(each.requests for each in several)
        print(f"{name:26}{median(times):10.0f}{max(times):9.0f}{over:13.0f}{most / 1000:8.1f}{requests:10}")
        holds = holds and most < MOST_BYTES and (name == LIVE or median(times) < MOST_MILLISECONDS)
    print(f"{'holds' if holds else 'does not hold'}: under {MOST_BYTES // 1000} kB and {MOST_MILLISECONDS} ms")
    return holds


@contextmanager
def chromium() -> Iterator[Browser]:
    """This machine's, headless."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        sys.exit("no chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        yield playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--views", type=int, default=7)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mhpo-page-") as name:
        folder = Path(name)
        with own_record(folder, MHPO_DATA_DIR=name) as url:
            steps = _record(folder, arguments.points)
            print(f"a run of {steps:,} steps, {steps * len(NAMES):,} points")
            with serving(folder, url), chromium() as browser:
                if not measure(browser, url, steps, arguments.views):
                    sys.exit(1)


def _record(folder: Path, points: int) -> int:
    from migrations import schema

    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text("{}")
    (folder / "sums.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    schema.upgrade()
    spec = {
        "model": {"path": str(folder / "model")},
        "dataset": {"path": str(folder / "sums.jsonl")},
        "rewards": [{"type": "exact"}],
    }
    steps = fill(points, spec)
    log = folder / "runs" / JOB / "trainer.log"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"step {n} done, reward 0.5\n" for n in range(steps)))
    return steps


if __name__ == "__main__":
    main()
