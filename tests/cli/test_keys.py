"""`mhpo keys`, and the key that `mhpo up` makes for whoever runs it."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.settings import Settings
from cli.credentials import keep, key_file, key_for
from tests.cli.command import Up, mhpo, up

pytestmark = pytest.mark.slow  # many short processes


def asked(url: str, key: str | None, path: str = "/v1/jobs") -> int:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return httpx.get(f"{url}{path}", headers=headers, trust_env=False, timeout=30).status_code


def test_a_key_is_made_listed_and_revoked(record: Settings, url: str) -> None:
    def keys(*arguments: str) -> subprocess.CompletedProcess[str]:
        return mhpo("keys", *arguments, MHPO_DATABASE_URL=record.database_url)

    made = keys("create", "laptop", "--scope", "admin", "--project", "red", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert "scope admin, project red" in made.stderr
    assert key not in made.stderr
    assert asked(url, key, "/v1/keys") == 200

    row = json.loads(keys("list", "--json").stdout)  # one line: one key
    assert (row["name"], row["project"], row["scope"], row["revoked_at"]) == ("laptop", "red", "admin", None)
    assert key.startswith(row["prefix"])
    table = keys("list").stdout
    assert "works until" in table
    assert key not in table

    assert keys("revoke", row["id"]).stdout == f"{row['id']} revoked\n"
    assert json.loads(keys("revoke", row["id"], "--json").stdout)["revoked_at"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("create", "a", "--scope", "root"), "'root' is no scope; there are read, write, admin"),
        (("create", "a", "--project", "Red Team"), "'Red Team' is no name of a project"),
        (("create", "a", "--expires", "soon"), "'soon' is no lifetime; write 90d, 12h or 30m"),
        (("revoke", "key-1"), "no key has the id 'key-1'; `mhpo keys list` shows them"),
    ],
)
def test_a_wrong_wish_is_one_sentence(record: Settings, arguments: tuple[str, ...], says: str) -> None:
    refused = mhpo("keys", *arguments, MHPO_DATABASE_URL=record.database_url)
    assert refused.returncode == (6 if arguments[0] == "revoke" else 4)
    assert refused.stderr.startswith(f"mhpo: {says}")
    assert refused.stderr.count("\n") == 1


def test_a_database_out_of_reach_is_named_without_its_password() -> None:
    refused = mhpo("keys", "list", MHPO_DATABASE_URL="postgresql+psycopg://mhpo:hush-hush@127.0.0.1:1/mhpo")
    assert refused.returncode == 5
    assert refused.stderr.startswith("mhpo: the database cannot be used: ")
    assert "hush-hush" not in refused.stderr


def test_a_kept_key_goes_to_its_own_service_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MHPO_API_KEY", raising=False)
    monkeypatch.setenv("MHPO_DATA_DIR", str(tmp_path))
    assert key_for("http://127.0.0.1:8000") is None
    keep(tmp_path, "http://127.0.0.1:8000", "mhpo-secret")
    assert stat.S_IMODE(key_file(tmp_path).stat().st_mode) == 0o600
    assert key_for("http://127.0.0.1:8000") == key_for("http://localhost:8000") == "mhpo-secret"
    for other in ("http://127.0.0.1:8001", "https://127.0.0.1:8000", "http://box:8000", "http://[::1", "nonsense"):
        assert key_for(other) is None
    monkeypatch.setenv("MHPO_API_KEY", "mhpo-other")
    assert key_for("http://box:8000") == "mhpo-other"


@pytest.mark.slow
def test_it_does_not_listen_beyond_this_machine_before_there_is_a_key(record: Settings) -> None:
    for host in ("0.0.0.0", "::"):
        env = {**os.environ, "MHPO_HOST": host, "MHPO_PORT": "0"}
        served = subprocess.run([sys.executable, "-m", "api"], check=False, env=env, capture_output=True, text=True, timeout=60)
        assert served.returncode == 1
        assert "mhpo keys create NAME" in served.stderr
        assert "running on" not in served.stderr


@pytest.mark.slow
def test_another_address_needs_a_key_that_can_be_made_before_the_service_runs(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    refused = mhpo("up", "--data-dir", str(folder), "--port", "0", "--host", "0.0.0.0")
    assert refused.returncode == 1
    assert "on 0.0.0.0 every request needs an API key" in refused.stderr
    made = mhpo("keys", "create", "laptop", "--data-dir", str(folder))
    assert made.returncode == 0, made.stderr
    with up(tmp_path, MHPO_HOST="0.0.0.0") as running:
        assert asked(running.url, None) == 401
        assert asked(running.url, made.stdout.strip()) == 200
        assert "#key=" not in running.said()


def commands(running: Up, spec: dict[str, Any], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    (folder / "job.json").write_text(json.dumps(spec))
    asked = (("submit", str(folder / "job.json")), ("jobs",))
    return [mhpo(*words, MHPO_URL=running.url, MHPO_DATA_DIR=str(running.data_dir)) for words in asked]


@pytest.mark.slow
def test_the_commands_of_whoever_runs_it_use_the_key_that_was_made(tmp_path: Path, spec: dict[str, Any]) -> None:
    with up(tmp_path, MHPO_REQUIRE_KEY="true") as first:
        assert first.said().count("#key=mhpo-") == 1
        link = first.said().split("/#key=")[1].split()[0]
        assert asked(first.url, None) == 401
        assert asked(first.url, link, "/v1/keys") == 200
        assert [each.returncode for each in commands(first, spec, tmp_path)] == [0, 0]
        assert mhpo("jobs", MHPO_URL=first.url, MHPO_DATA_DIR="/nowhere").returncode == 7
        listed = mhpo("keys", "list", "--data-dir", str(first.data_dir))
        assert "made by mhpo up" in listed.stdout
        (first.output).rename(tmp_path / "first")
    with up(tmp_path, MHPO_REQUIRE_KEY="true") as second:
        assert "#key=" not in second.said()
        assert asked(second.url, link) == 200
        assert [each.returncode for each in commands(second, spec, tmp_path)] == [0, 0]
