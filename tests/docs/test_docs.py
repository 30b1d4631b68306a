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


def test_the_terminal_reference_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "terminal_reference.py"))
    assert (ROOT / "docs" / "terminal.md").read_text(encoding="utf-8") == script["reference"](), (
        "run .venv/bin/python scripts/terminal_reference.py"
    )


def test_every_command_that_is_told_of_exists() -> None:
    """Each `mhpo ...` in the documents, the page's words and the commands' own messages."""
    script = runpy.run_path(str(ROOT / "scripts" / "terminal_reference.py"))
    known = {
        tuple(usage.split()[1:3])
        for rows in script["panels"]().values()
        for usage in re.findall(r"^\| `([^`]*)`", "\n".join(rows), re.M)
    }
    words = {first for first, *_ in known}
    groups = {first for first, *rest in known if rest and rest[0].islower()}
    told = [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", *(ROOT / "cli").glob("*.py"), *(ROOT / "api").glob("*.py")]
    for file in told:
        for first, second in re.findall(r"[`/ ]mhpo ([a-z]+)(?: ([a-z]+)\b)?", _code(file)):
            assert first in words, f"{file.name} tells of `mhpo {first}`"
            assert first not in groups or not second or (first, second) in known, f"{file.name}: `mhpo {first} {second}`"


def _code(file: Path) -> str:
    """What stands in backticks: spans, and blocks of a shell."""
    text = file.read_text(encoding="utf-8")
    blocks = re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL) if file.suffix == ".md" else []
    return "\n".join([*blocks, *re.findall(r"`[^`\n]+`", text)])


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
