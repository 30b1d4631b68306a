"""The API against its own OpenAPI document: schemathesis sends what the document allows and what it forbids, in chains too."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from api.models import Scope
from api.settings import Settings
from cli.say import say
from tests.api.locked import new_key
from tests.conftest import api_server

CASES = 10  # of each operation and phase, beside those that schemathesis always tries
# What fits the document may name a model that is not there; Starlette names a route's methods, not all of its path.
NOT_CHECKED = "positive_data_acceptance,allow_header_conformance"


@pytest.mark.slow
def test_the_api_keeps_to_its_document(record: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    key = new_key(scope=Scope.ADMIN)
    with api_server(tmp_path / "api.log", MHPO_REQUIRE_KEY="true") as server:
        command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{server.url}/openapi.json"]
        command += ["--header", f"Authorization: Bearer {key}", "--exclude-checks", NOT_CHECKED]
        command += ["--phases", "examples,coverage,fuzzing,stateful", "--mode", "all", "--max-examples", str(CASES)]
        command += ["--seed", "1", "--no-shrink", "--continue-on-failure", "--exclude-path-regex", "/stream$"]
        done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-8000:]
    counted = re.search(r"(\d+) generated", done.stdout)
    assert counted is not None
    assert int(counted[1]) > 100
    assert "Internal Server Error" not in (tmp_path / "api.log").read_text()
    with capsys.disabled():
        say(f"\nschemathesis: {counted[1]} requests, no 5xx, every answer as the document says")
