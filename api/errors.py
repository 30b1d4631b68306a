"""Every error leaves in one envelope: `{"error": {"message", "type", "param", "code"}}`."""

import logging
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from api.database import OUTAGES
from api.headers import SECURITY_HEADERS
from api.middleware import REQUEST_ID
from api.record import JobEndedError, UnknownJobError, WrongStatusError
from api.uploads import FileInUseError
from trainer.strict import SpecError

logger = logging.getLogger(__name__)

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large", 503: "unavailable"}


class ApiError(Exception):
    """An answer with a status of 400 and up; `param` is the dotted place of the fault in what was sent."""

    def __init__(self, status: HTTPStatus, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param


def not_found(noun: str, key: str) -> ApiError:
    return ApiError(HTTPStatus.NOT_FOUND, "not_found", f"no {noun} has the id {key[:80]!r}")


def handle_errors(app: FastAPI) -> None:
    """Give `app` a handler for each kind of error that can leave an endpoint."""

    @app.exception_handler(ApiError)
    def api_error(_: Request, error: ApiError) -> JSONResponse:
        return envelope(error.status, error.code, error.message, error.param)

    @app.exception_handler(SpecError)
    def spec_error(_: Request, error: SpecError) -> JSONResponse:
        return envelope(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_spec", error.message, error.param)

    @app.exception_handler(UnknownJobError)
    def unknown_job(_: Request, error: UnknownJobError) -> JSONResponse:
        return api_error(_, not_found("job", str(error)))

    @app.exception_handler(JobEndedError)
    def job_ended(_: Request, error: JobEndedError) -> JSONResponse:
        return envelope(HTTPStatus.CONFLICT, "job_ended", str(error))

    @app.exception_handler(WrongStatusError)
    def wrong_status(_: Request, error: WrongStatusError) -> JSONResponse:
        return envelope(HTTPStatus.CONFLICT, "wrong_status", str(error))

    @app.exception_handler(FileInUseError)
    def file_in_use(_: Request, error: FileInUseError) -> JSONResponse:
        return envelope(HTTPStatus.CONFLICT, "file_in_use", str(error))

    @app.exception_handler(RequestValidationError)
    def invalid_request(_: Request, error: RequestValidationError) -> JSONResponse:
        fault = error.errors()[0]
        place = [str(part) for part in fault["loc"][1:]]  # without "query", "path" or "body"
        return envelope(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", fault["msg"], ".".join(place) or None)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        status = HTTPStatus(error.status_code)
        message = f"{request.method} {request.url.path}: {error.detail}" if status in (404, 405) else error.detail
        return envelope(status, _CODES.get(status, "invalid_request"), message, headers=dict(error.headers or {}))

    for outage in OUTAGES:
        app.exception_handler(outage)(_database_error)
    app.exception_handler(Exception)(_unexpected)


def _database_error(_: Request, error: Exception) -> JSONResponse:
    logger.error("the database did not answer: %s", error)
    message = "The database does not answer; try again."
    return envelope(
        HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", message, headers={"retry-after": "2", "x-should-retry": "true"}
    )


def _unexpected(request: Request, _: Exception) -> JSONResponse:
    """The server logs the traceback after this answer; the request id finds it."""
    request_id = request.scope["state"][REQUEST_ID]
    headers = {**SECURITY_HEADERS, "x-request-id": request_id}
    message = f"An error of ours; it is in the server's log beside request {request_id}."
    return envelope(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", message, headers=headers)


def envelope(
    status: HTTPStatus, code: str, message: str, param: str | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    if status == HTTPStatus.CONFLICT:  # OpenAI's client would send it again: no state of ours changes by asking twice
        headers = {"x-should-retry": "false", **(headers or {})}
    kind = "server_error" if status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"
    error: dict[str, Any] = {"message": message, "type": kind, "param": param, "code": code}
    return JSONResponse({"error": error}, status, headers)
