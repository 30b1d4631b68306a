"""Screenshots of the page with real runs: the list of jobs, a run and a comparison, in two widths.

    python -m benchmarks.screenshots [--steps 40] [--engine transformers|vllm] [--data-dir .mhpo] [-o artifacts/screenshots]

Starts the service on its own folder in `--data-dir`, trains the first run's job with MHPO and with GRPO and scores both, unless
an earlier call has, and takes the pictures in headless Chromium. Those that docs/page.md shows are also written to docs/.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page

from benchmarks.first_run import ROOT, first_run_spec
from benchmarks.page import chromium
from cli.client import Client
from cli.stack import Stack, running, settings_from
from trainer.config import JobSpec

WIDTHS = {1280: 860, 380: 800}  # width -> height of the window
ALGORITHMS = ("mhpo", "grpo")
IN_DOCS = {"run-1280": "page-run.png", "compare-1280": "page-compare.png", "run-380": "page-phone.png"}
COLOURS = 128  # of a picture; text and curves need no more
MOST_BYTES = 150_000
SECONDS = 3600


def spec_of(base: JobSpec, algorithm: str, heldout: Path) -> dict[str, Any]:
    """The first run with this algorithm, with checkpoints that are scored."""
    document = base.model_dump(mode="json")
    every = max(1, base.steps // 2)
    return document | {
        "name": f"first run, {algorithm.upper()}",
        "algorithm": {"type": algorithm},
        "checkpoints": {"every": every},
        "evaluation": {"benchmarks": [str(heldout)], "samples": 1, "max_problems": 100, "every": 1},
    }


def trained(client: Client, stack: Stack, specs: list[dict[str, Any]]) -> list[str]:
    """Ids of a succeeded and scored job of each spec; those that the record lacks are run."""
    there = {job["name"]: job["id"] for job in client.get("/v1/jobs", status="succeeded")["data"]}
    ids = [there.get(spec["name"]) or client.post("/v1/jobs", spec)["id"] for spec in specs]
    for job_id in ids:
        wait(stack, partial(is_done, client, job_id))
    return ids


def is_done(client: Client, job_id: str) -> bool:
    """Whether the job has succeeded and every evaluation of it has ended; exits where it has failed."""
    job = client.get(f"/v1/jobs/{job_id}")
    if job["status"] in ("failed", "cancelled"):
        sys.exit(f"the job {job_id} is {job['status']}: {job['status_reason']}")
    scored = client.get(f"/v1/jobs/{job_id}/evaluations")["data"]
    return job["status"] == "succeeded" and all(each["status"] not in ("queued", "running") for each in scored)


def wait(stack: Stack, done: Callable[[], bool]) -> None:
    """Until `done()`, the service tended meanwhile."""
    deadline = time.monotonic() + SECONDS
    while not done():
        if time.monotonic() > deadline:
            sys.exit(f"not done after {SECONDS} s")
        stack.tend()
        time.sleep(1)


def pictures(browser: Browser, url: str, ids: list[str], folder: Path) -> None:
    """Each page in each width, as it is seen without scrolling."""
    folder.mkdir(parents=True, exist_ok=True)
    shown = {
        "jobs": ("/", "tbody svg.spark"),
        "run": (f"/jobs/{ids[0]}", '[data-panel="Reward"] canvas'),
        "compare": (f"/compare?jobs={','.join(ids)}", '[data-panel="Reward"] canvas'),
    }
    for width, height in WIDTHS.items():
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme="light")
        page = context.new_page()
        for name, (path, selector) in shown.items():
            page.goto(f"{url}{path}")
            page.locator(selector).first.wait_for(state="visible")
            page.wait_for_timeout(1500)  # the other curves that are seen
            save(page, folder / f"{name}-{width}.png")
        context.close()


def save(page: Page, path: Path) -> None:
    """A picture in few colours; the one that the docs show is written there too."""
    small = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path}: {size / 1000:.0f} kB")
    if path.stem in IN_DOCS:
        if size > MOST_BYTES:
            sys.exit(f"{path} is too large for the docs")
        (ROOT / "docs" / IN_DOCS[path.stem]).write_bytes(path.read_bytes())


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--engine", choices=["vllm", "transformers"], default="transformers")
    parser.add_argument("--data-dir", type=Path, default=ROOT / ".mhpo")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "artifacts" / "screenshots")
    arguments = parser.parse_args()
    os.environ["MHPO_ALLOWED_ROOTS"] = str(arguments.data_dir.resolve())
    base = first_run_spec(arguments.data_dir, arguments.engine, arguments.steps)
    specs = [spec_of(base, algorithm, arguments.data_dir.resolve() / "first-run" / "heldout.jsonl") for algorithm in ALGORITHMS]
    settings = settings_from(data_dir=arguments.data_dir / "screenshots", port=0)
    with running(settings, say=lambda line: print(line, flush=True)) as stack:
        ids = trained(Client(stack.url), stack, specs)
        with chromium() as browser:
            pictures(browser, stack.url, ids, arguments.out)


if __name__ == "__main__":
    main()
