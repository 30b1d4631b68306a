"""docs/api.md names every route, and its examples work."""

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from openai import DefaultHttpxClient, OpenAI

from api.models import Json
from tests.conftest import SECONDS, ApiServer

TEXT = (Path(__file__).parents[2] / "docs" / "api.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)
    assert found
    return found[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the examples run: a model, a data set, and a spec of both."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    rows = [{"messages": [{"role": "user", "content": f"{n}+1="}], "answer": str(n + 1)} for n in range(20)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "sums.jsonl").write_text('{"problem": "1+1=", "answer": "2"}\n')
    spec: Json = {"model": {"path": str(tmp_path / "model")}, "dataset": {"path": str(tmp_path / "sums.jsonl")}}
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    return tmp_path


def test_every_route_is_named(client: httpx.Client) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    for path, methods in paths.items():
        for method in methods:
            assert f"`{method.upper()} {path}`" in TEXT


def test_the_shell_example_works(client: httpx.Client, shared_api: ApiServer, folder: Path) -> None:
    script = block("sh").replace("| jq -r .id", "| python3 -c 'import json, sys; print(json.load(sys.stdin)[\"id\"])'")
    command = ["bash", "-euo", "pipefail", "-c", script]
    environment = {"PATH": "/usr/bin:/bin:/usr/local/bin", "URL": shared_api.url}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert client.get("/v1/jobs").json()["data"][0]["status"] == "cancelled"


def test_the_example_of_openai_works(
    client: httpx.Client, shared_api: ApiServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(**arguments: str) -> OpenAI:
        return OpenAI(**arguments, http_client=DefaultHttpxClient(trust_env=False, timeout=SECONDS))  # type: ignore[arg-type]

    said: list[str] = []
    says: Callable[[str], None] = said.append
    monkeypatch.chdir(folder)
    exec(
        block("python"),
        {"OpenAI": connect, "URL": shared_api.url, "KEY": "none", "MODEL": str(folder / "model"), "print": says},
    )
    assert said == ["The job is queued."]
    [job] = client.get("/v1/jobs").json()["data"]
    assert (job["name"], job["steps"], job["spec"]["rollout"]["max_new_tokens"]) == ("sums", 3, 64)
