"""Uploaded data sets."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, UploadFile

from api import record_read
from api.dependencies import SessionDep
from api.errors import not_found
from api.models import File, is_id
from api.openapi import FILE_BODY
from api.schemas import FileView, Listing
from api.uploads import received

PATH = "/v1/files"

router = APIRouter(prefix=PATH, tags=["files"])


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": FILE_BODY})
def upload_file(file: UploadFile, session: SessionDep, request: Request, response: Response) -> FileView:
    """Upload JSONL or parquet; its id stands for it in `dataset.path` of a job spec."""
    with received(file.file, file.filename or "") as row, session.begin():
        session.add(row)
    session.refresh(row)
    response.headers["location"] = request.url_for("get_file", file_id=row.id).path
    return FileView.of(row)


@router.get("")
def list_files(
    session: SessionDep,
    after: Annotated[str | None, Query(description="The id of the last file of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Listing[FileView]:
    """Uploaded files, newest first."""
    last = None if after is None else _find_file(session, after)
    files, has_more = record_read.page(session, File, last, limit)
    return Listing(data=[FileView.of(file) for file in files], has_more=has_more)


@router.get("/{file_id}")
def get_file(file_id: str, session: SessionDep) -> FileView:
    """One uploaded file: size, hash, rows, columns."""
    return FileView.of(_find_file(session, file_id))


def _find_file(session: SessionDep, file_id: str) -> File:
    file = session.get(File, file_id) if is_id("file", file_id) else None
    if file is None:
        raise not_found("file", file_id)
    return file
