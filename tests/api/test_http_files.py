"""Uploads over HTTP: stored with their hash, validated, used in a job by their id."""

import hashlib
from pathlib import Path

import httpx
import pyarrow
import pyarrow.parquet
import pytest

from api.models import Json
from api.settings import settings
from tests.api.conftest import rows

ROWS = b'{"problem": "1+1=", "answer": "2"}\n{"problem": "2+2=", "answer": "4", "level": 1}\n'


def upload(client: httpx.Client, content: bytes, name: str = "sums.jsonl") -> httpx.Response:
    return client.post("/v1/files", files={"file": (name, content)})


def stored() -> set[Path]:
    return set(settings().files_folder().glob("*"))


def test_an_uploaded_file_is_kept_described_and_listed(client: httpx.Client) -> None:
    answer = upload(client, ROWS)
    assert answer.status_code == 201
    file = answer.json()
    assert answer.headers["location"] == f"/v1/files/{file['id']}"
    assert (file["filename"], file["format"], file["rows"], file["bytes"]) == ("sums.jsonl", "jsonl", 2, len(ROWS))
    assert file["columns"] == ["problem", "answer", "level"]
    assert file["sha256"] == hashlib.sha256(ROWS).hexdigest()
    assert client.get(answer.headers["location"]).json() == file
    second = upload(client, ROWS).json()
    assert [each["id"] for each in client.get("/v1/files").json()["data"]] == [second["id"], file["id"]]
    assert [each["id"] for each in client.get("/v1/files", params={"after": second["id"]}).json()["data"]] == [file["id"]]
    assert (settings().files_folder() / f"{file['id']}.jsonl").read_bytes() == ROWS


def test_parquet_is_known_by_its_content(client: httpx.Client, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"problem": ["1+1="], "answer": [2]}), tmp_path / "rows")
    file = upload(client, (tmp_path / "rows").read_bytes(), "rows").json()
    assert (file["format"], file["rows"], file["columns"]) == ("parquet", 1, ["problem", "answer"])


def test_a_job_trains_on_an_uploaded_file_and_keeps_its_id(client: httpx.Client, spec: Json) -> None:
    file_id = upload(client, ROWS).json()["id"]
    job = client.post("/v1/jobs", json={**spec, "dataset": {"path": file_id}})
    assert job.status_code == 201
    assert job.json()["spec"]["dataset"]["path"] == file_id
    [(path,)] = rows("SELECT resolved_spec -> 'dataset' ->> 'path' FROM jobs")
    assert Path(path).read_bytes() == ROWS


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (ROWS + b"{nonsense\n", "line 3 of sums.jsonl"),
        (ROWS + b"[1, 2]\n", "line 3 of sums.jsonl"),
        (b"\xff\xfe\x00", "sums.jsonl"),
        (b"", "no rows"),
        (b"\n\n", "no rows"),
        (b"PAR1 and then nothing", "parquet"),
        (b'{"a": ' + b"9" * 5000 + b"}", "line 1"),
    ],
)
def test_a_bad_file_is_refused_and_not_kept(client: httpx.Client, content: bytes, says: str) -> None:
    before = stored()
    answer = upload(client, content)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (422, "file")
    assert says in error["message"]
    assert str(settings().data_dir) not in error["message"]
    assert rows("SELECT count(*) FROM files") == [(0,)]
    assert stored() == before


def test_a_name_cannot_lead_out_of_the_folder(client: httpx.Client) -> None:
    file = upload(client, ROWS, "../../etc/passwd").json()
    assert file["filename"] == "passwd"
    assert (settings().files_folder() / f"{file['id']}.jsonl").exists()


def test_columns_that_postgres_cannot_keep_are_shown_replaced(client: httpx.Client) -> None:
    answer = upload(client, b'{"a\\u0000": 1, "\\ud800": 2}\n')
    assert (answer.status_code, answer.json()["columns"]) == (201, ["a\ufffd", "\ufffd"])


def test_a_body_that_is_no_upload_is_refused(client: httpx.Client) -> None:
    for answer in (client.post("/v1/files", content=b"rows"), client.post("/v1/files", data={"file": "rows"})):
        assert (answer.status_code, answer.json()["error"]["param"]) == (422, "file")
    assert client.get("/v1/files/file-aaaaaaaaaaaaaaaaaaaaaaaa").status_code == 404
    assert client.get("/v1/files/%00").status_code == 404


def test_a_file_comes_back_as_it_was_sent(client: httpx.Client) -> None:
    file_id = upload(client, ROWS).json()["id"]
    answer = client.get(f"/v1/files/{file_id}/content")
    assert (answer.status_code, answer.content) == (200, ROWS)
    assert 'filename="sums.jsonl"' in answer.headers["content-disposition"]


def test_files_of_the_same_content_share_it_until_the_last_is_deleted(client: httpx.Client) -> None:
    before = stored()
    first, second = (upload(client, ROWS).json()["id"] for _ in range(2))
    assert len(stored() - before) == 1
    assert client.delete(f"/v1/files/{first}").json() == {"id": first, "object": "file", "deleted": True}
    assert client.get(f"/v1/files/{first}").status_code == 404
    assert client.get(f"/v1/files/{second}/content").content == ROWS
    client.delete(f"/v1/files/{second}").raise_for_status()
    assert stored() == before
    assert client.delete(f"/v1/files/{second}").status_code == 404


def test_a_file_that_a_job_needs_cannot_be_deleted(client: httpx.Client, spec: Json) -> None:
    file_id = upload(client, ROWS).json()["id"]
    job_id = client.post("/v1/jobs", json={**spec, "dataset": {"path": file_id}}).json()["id"]
    refused = client.delete(f"/v1/files/{file_id}")
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "file_in_use")
    assert job_id in refused.json()["error"]["message"]
    client.post(f"/v1/jobs/{job_id}/cancel").raise_for_status()
    client.delete(f"/v1/files/{file_id}").raise_for_status()


def test_files_are_listed_by_purpose_in_either_order(client: httpx.Client) -> None:
    def put(purpose: str) -> str:
        answer = client.post("/v1/files", files={"file": ("sums.jsonl", ROWS)}, data={"purpose": purpose})
        return str(answer.raise_for_status().json()["id"])

    first, other, last = put("fine-tune"), put("evals"), put("fine-tune")

    def listed(**params: str) -> list[str]:
        return [file["id"] for file in client.get("/v1/files", params=params).raise_for_status().json()["data"]]

    assert listed(purpose="fine-tune") == [last, first]
    assert listed(order="asc") == [first, other, last]
    assert listed(order="asc", after=first) == [other, last]
    assert listed(purpose="evals") == [other]
    refused = client.post("/v1/files", files={"file": ("a", ROWS)}, data={"purpose": "fun"})
    assert (refused.status_code, refused.json()["error"]["param"]) == (422, "purpose")
