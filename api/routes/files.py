"""Uploaded data sets, in the form of OpenAI's files."""

from http import HTTPStatus
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse

from api import record_read, uploads
from api.dependencies import SessionDep
from api.errors import not_found
from api.models import File, Purpose, is_id
from api.openapi import FILE_BODY
from api.schemas import DeletedFile, FileListing, FileView
from trainer.strict import SpecError

PATH = "/v1/files"

router = APIRouter(prefix=PATH, tags=["files"])


@router.post("", status_code=HTTPStatus.CREATED, openapi_extra={"requestBody": FILE_BODY})
def upload_file(
    file: UploadFile,
    session: SessionDep,
    request: Request,
    response: Response,
    purpose: Annotated[Purpose, Form()] = Purpose.FINE_TUNE,
    expires: Annotated[str | None, Form(alias="expires_after[anchor]")] = None,
) -> FileView:
    """Upload JSONL or parquet; its id stands for it in `dataset.path` of a job spec, and as a `training_file`."""
    if expires is not None:
        raise SpecError("expires_after", "files are kept until they are deleted; leave expires_after out")
    with uploads.received(file.file, file.filename or "", purpose) as row, session.begin():
        uploads.keep(session, row)
    session.refresh(row)
    response.headers["location"] = request.url_for("get_file", file_id=row.id).path
    return FileView.of(row)


@router.get("")
def list_files(
    session: SessionDep,
    after: Annotated[str | None, Query(description="The id of the last file of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 20,
    order: Literal["asc", "desc"] = "desc",
    purpose: Purpose | None = None,
) -> FileListing:
    """Uploaded files, newest first; those that the service made of another (purpose derived) only where asked for."""
    last = None if after is None else _find_file(session, after)
    wanted = File.purpose != Purpose.DERIVED if purpose is None else File.purpose == purpose
    files, has_more = record_read.page(session, File, last, limit, [wanted], ascending=order == "asc")
    return FileListing.of([FileView.of(file) for file in files], has_more=has_more)


@router.get("/{file_id}")
def get_file(file_id: str, session: SessionDep) -> FileView:
    """One uploaded file: size, hash, rows, columns."""
    return FileView.of(_find_file(session, file_id))


@router.get("/{file_id}/content", response_class=FileResponse)
def download_file(file_id: str, session: SessionDep) -> FileResponse:
    """The file as it was uploaded."""
    file = _find_file(session, file_id)
    return FileResponse(uploads.location(file), media_type="application/octet-stream", filename=file.filename)


@router.delete("/{file_id}")
def delete_file(file_id: str, session: SessionDep) -> DeletedFile:
    """Remove a file; 409 while a job that has not ended uses it."""
    _find_file(session, file_id)
    session.rollback()
    with session.begin():
        unused = uploads.delete(session, file_id)
    if unused is not None:
        unused.unlink(missing_ok=True)
    return DeletedFile(id=file_id)


def _find_file(session: SessionDep, file_id: str) -> File:
    file = session.get(File, file_id) if is_id("file", file_id) else None
    if file is None:
        raise not_found("file", file_id)
    return file
