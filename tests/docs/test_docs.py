"""What the documents say is what the code says."""

import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_job_spec_reference_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "job_spec_reference.py"))
    assert (ROOT / "docs" / "job-spec.md").read_text(encoding="utf-8") == script["reference"](), (
        "run .venv/bin/python scripts/job_spec_reference.py"
    )


def test_the_algorithms_reference_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "algorithms_reference.py"))
    assert (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8") == script["reference"](), (
        "run .venv/bin/python scripts/algorithms_reference.py"
    )


def test_every_metric_of_a_step_is_explained() -> None:
    """docs/metrics.md names each metric that the trainer writes."""
    explained = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    for source in ("metrics.py", "losses/telemetry.py", "shaping.py", "train.py", "learning.py", "clock.py"):
        text = (ROOT / "trainer" / source).read_text(encoding="utf-8")
        names = {word for word in text.split('"') if "/" in word and " " not in word and "{" not in word and word[0].islower()}
        assert names or source == "clock.py"
        for name in names:
            assert f"`{name}`" in explained or name.endswith("/"), f"docs/metrics.md lacks `{name}`"


def test_every_test_that_a_document_names_is_there() -> None:
    named = [
        name
        for path in (ROOT / "docs").glob("*.md")
        for name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)", path.read_text("utf-8"))
    ]
    assert named
    for path, name in named:
        assert f"def {name}(" in (ROOT / path).read_text("utf-8"), f"{path} has no {name}"
