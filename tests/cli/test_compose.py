"""docker-compose.yml against what it refers to; no container engine is needed."""

import re
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from api.settings import Settings

ROOT = Path(__file__).parents[2]
COMPOSE = ROOT / "docker-compose.yml"
OURS = ("migrate", "api", "worker", "evaluator")


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load(COMPOSE.read_text())


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_every_variable_is_in_the_example_and_the_other_way_round() -> None:
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", COMPOSE.read_text()))

    assert used == set(example())


def test_defaults_are_those_of_the_example() -> None:
    defaults = dict(re.findall(r"(?<!\$)\$\{([A-Z_]+):-([^}]*)\}", COMPOSE.read_text()))

    assert defaults == {name: value for name, value in example().items() if not name.endswith("PASSWORD")}


@pytest.mark.parametrize("service", OURS)
def test_every_setting_exists(compose: Any, service: str) -> None:
    names = [name for name in compose["services"][service]["environment"] if name.startswith("MHPO_")]

    assert names
    assert {name.removeprefix("MHPO_").lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("service", OURS)
def test_every_image_can_be_built_from_here(compose: Any, service: str) -> None:
    build = compose["services"][service]["build"]
    dockerfile = (ROOT / build["dockerfile"]).read_text()
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    copied = [line.split()[1:-1] for line in dockerfile.splitlines() if line.startswith("COPY ") and "--from" not in line]
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}

    assert build["context"] == "."
    assert set(packages) <= {source for sources in copied for source in sources}
    for source in (each for sources in copied for each in sources):
        assert (ROOT / source).exists()
        assert source in kept or any(Path(source).match(pattern) for pattern in kept)


def test_the_modules_of_the_commands_exist(compose: Any) -> None:
    services = compose["services"]
    assert services["migrate"]["command"] == ["python", "-m", "migrations"]
    assert find_spec("migrations.__main__")
    for name, queue in (("worker", "gpu"), ("evaluator", "eval")):
        command = services[name]["command"]
        assert command[command.index("-A") + 1] == "worker.tasks"
        assert command[command.index("-Q") + 1] == queue
    assert find_spec("worker.tasks")
    assert '["python", "-m", "api"]' in (ROOT / "api" / "Dockerfile").read_text()
    assert find_spec("api.__main__")


def test_a_worker_has_longer_to_stop_than_a_checkpoint(compose: Any) -> None:
    for name in ("worker", "evaluator"):
        assert float(compose["services"][name]["stop_grace_period"].removesuffix("s")) > Settings().cancel_grace_seconds + 30


def test_our_containers_run_as_an_ordinary_user_without_capabilities(compose: Any) -> None:
    for name in OURS:
        service = compose["services"][name]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        final_stage = (ROOT / service["build"]["dockerfile"]).read_text().rsplit("\nFROM ", 1)[1]
        assert "\nUSER mhpo\n" in final_stage


def test_only_the_api_is_published_and_on_loopback(compose: Any) -> None:
    published = {name: service["ports"] for name, service in compose["services"].items() if "ports" in service}

    assert published == {"api": ["${MHPO_BIND:-127.0.0.1}:${MHPO_PORT:-8000}:8000"]}


def test_everything_waits_for_what_it_needs(compose: Any) -> None:
    services = compose["services"]
    for name, service in services.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = {"service_healthy": "healthcheck", "service_completed_successfully": "command"}[how["condition"]]
            assert wanted in services[needed], (name, needed)
    assert services["migrate"]["restart"] == "no"
    named = {volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])}
    assert set(compose["volumes"]) == {name for name in named if not name.startswith("$")}
