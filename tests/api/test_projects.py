"""A key sees its own project only: every route is asked for what belongs to another, and by nobody."""

import re
from collections.abc import Iterator

import httpx
import pytest
from fastapi.routing import APIRoute

from api.guard import PUBLIC, PUBLIC_FOLDERS
from api.main import create_app
from api.models import Json, Scope
from tests.api.conftest import rows
from tests.api.locked import client_of
from tests.conftest import ApiServer

ROWS = b'{"problem": "1+1=", "answer": "2"}\n'


def routes() -> Iterator[tuple[str, str]]:
    """(method, path) of every route of the app that is not public."""
    for route in create_app().routes:
        if isinstance(route, APIRoute) and not (route.path in PUBLIC or route.path.startswith(PUBLIC_FOLDERS)):
            for method in sorted(route.methods):
                yield method, route.path


@pytest.fixture
def red(locked: ApiServer) -> Iterator[httpx.Client]:
    with client_of(locked, "red", Scope.ADMIN) as client:
        yield client


@pytest.fixture
def blue(locked: ApiServer) -> Iterator[httpx.Client]:
    with client_of(locked, "blue", Scope.ADMIN) as client:
        yield client


@pytest.fixture
def of_red(red: httpx.Client, spec: Json) -> dict[str, str]:
    """What a parameter of a path stands for: things of the project red."""
    job = red.post("/v1/jobs", json={**spec, "evaluation": {"benchmarks": [spec["dataset"]["path"]]}}).json()["id"]
    return {
        "job_id": job,
        "fine_tuning_job_id": job,
        "evaluation_id": red.get(f"/v1/jobs/{job}/evaluations").json()["data"][0]["id"],
        "file_id": red.post("/v1/files", files={"file": ("sums.jsonl", ROWS)}).json()["id"],
        "key_id": red.get("/v1/keys").json()["data"][0]["id"],
        "comparison_id": red.post(
            "/v1/comparisons", json={"base": spec, "algorithms": [{"algorithm": {"type": "grpo"}}]}
        ).json()["id"],
        "webhook_id": red.post("/v1/webhooks", json={"url": "https://example.com/hook"}).json()["id"],
        "model": red.get("/v1/models").json()["data"][0]["id"],
        "benchmark": "sums",
        "step": "1",
    }


def filled(path: str, ids: dict[str, str]) -> str:
    names = re.findall(r"{(\w+)", path)
    assert set(names) <= set(ids), f"{path}: say in `of_red` what of another project these stand for: {set(names) - set(ids)}"
    return re.sub(r"{(\w+)[^}]*}", lambda found: ids[found[1]], path)


def test_every_route_answers_404_for_what_belongs_to_another_project(
    blue: httpx.Client, red: httpx.Client, of_red: dict[str, str]
) -> None:
    asked = [(method, filled(path, of_red)) for method, path in routes() if "{" in path]
    assert len(asked) >= 8
    answers = {(method, path): blue.request(method, path, json={}).status_code for method, path in asked}
    assert answers == dict.fromkeys(answers, 404)
    for own in (f"/v1/jobs/{of_red['job_id']}", f"/v1/files/{of_red['file_id']}", f"/v1/keys/{of_red['key_id']}"):
        assert red.get(own).status_code == 200, own
    assert rows("SELECT DISTINCT status FROM jobs") == [("queued",)]
    assert rows("SELECT count(*) FROM api_keys WHERE revoked_at IS NOT NULL") == [(0,)]


def test_no_list_holds_what_belongs_to_another_project(blue: httpx.Client, red: httpx.Client, of_red: dict[str, str]) -> None:
    lists = [path for method, path in routes() if method == "GET" and "{" not in path]
    assert {"/v1/jobs", "/v1/files", "/v1/keys"} <= set(lists)
    ids = {value for name, value in of_red.items() if name.endswith("_id")}
    for path in lists:
        assert not [each for each in ids if each in blue.get(path).text], path
    seen = "".join(red.get(path).text for path in lists)
    assert of_red["job_id"] in seen
    assert of_red["file_id"] in seen


def test_a_place_in_a_list_and_a_spec_cannot_name_what_belongs_to_another(
    blue: httpx.Client, of_red: dict[str, str], spec: Json
) -> None:
    assert blue.get("/v1/jobs", params={"after": of_red["job_id"]}).status_code == 404
    assert blue.get("/v1/files", params={"after": of_red["file_id"]}).status_code == 404
    refused = blue.post("/v1/jobs", json={**spec, "dataset": {"path": of_red["file_id"]}})
    assert refused.json()["error"]["message"] == f"no uploaded file has the id {of_red['file_id']!r}"


def test_every_route_wants_a_key(locked: ApiServer, of_red: dict[str, str]) -> None:
    with locked.client() as nobody:
        answers = {(method, path): nobody.request(method, filled(path, of_red)).status_code for method, path in routes()}
    assert len(answers) >= 15
    assert answers == dict.fromkeys(answers, 401)


def test_a_key_is_made_for_the_project_of_who_makes_it(red: httpx.Client, locked: ApiServer, of_red: dict[str, str]) -> None:
    made = red.post("/v1/keys", json={"name": "ci", "scope": "read", "days": 30})
    assert made.status_code == 201
    key = made.json()
    assert (key["project"], key["scope"]) == ("red", "read")
    assert key["key"].startswith(key["prefix"])
    assert key["expires_at"] > key["created_at"]
    with locked.client() as reader:
        reader.headers["authorization"] = f"Bearer {key['key']}"
        assert reader.get(f"/v1/jobs/{of_red['job_id']}").status_code == 200
        assert reader.post(f"/v1/jobs/{of_red['job_id']}/cancel").status_code == 403
    assert "key" not in red.get(made.headers["location"]).json()
    listed = red.get("/v1/keys").json()["data"]
    assert [each["name"] for each in listed] == ["ci", "a test"]
    assert key["key"] not in str(listed)


@pytest.mark.parametrize(
    ("body", "param"),
    [({}, "name"), ({"name": ""}, "name"), ({"name": "a", "scope": "root"}, "scope"), ({"name": "a", "days": 0}, "days")],
)
def test_a_bad_wish_for_a_key_is_refused_at_its_place(red: httpx.Client, body: Json, param: str) -> None:
    refused = red.post("/v1/keys", json=body)
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, param)
    assert rows("SELECT count(*) FROM api_keys") == [(1,)]
