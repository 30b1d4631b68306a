"""Lets a request in: by its API key, or on the loopback address without one; and says what its caller may do.

It stands before everything else that reads a request, so a route cannot forget it, and nobody without a key gets to send a
body. What serves the request finds its caller in `api.caller.CALLER`.
"""

import logging
import re
import time
from http import HTTPStatus
from typing import NoReturn

from anyio import to_thread
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from api import keys
from api.caller import CALLER, NOBODY, ON_LOOPBACK, Caller
from api.database import OUTAGES, transaction
from api.errors import envelope
from api.models import Scope as KeyScope
from api.rate_limit import RateLimit
from api.settings import is_loopback

logger = logging.getLogger(__name__)

# What anyone may read: no data of a job but for who needs no key. The page asks for the key itself.
PUBLIC = ("/", "/compare", "/healthz", "/readyz", "/docs", "/openapi.json", "/favicon.ico")
PUBLIC_FOLDERS = ("/jobs/", "/static/", "/docs/assets/")
KEYS_PATH = "/v1/keys"
SLOTS_PATH = "/v1/slots"
TELEMETRY_PATH = "/metrics"
_ACROSS_PROJECTS = (SLOTS_PATH, TELEMETRY_PATH)  # what counts or names the jobs of all projects

_READING = ("GET", "HEAD", "OPTIONS")
_FORWARDED = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_HOST = re.compile(r"(?P<name>[\w.-]+|\[[0-9a-fA-F:]+\])(:\d+)?", re.ASCII)
_BY_THE_SITE_ITSELF = ("same-origin", "none")  # of Sec-Fetch-Site; none: typed by the user
_REMEMBERED_SECONDS = 1.0  # a revoked key works for at most so long
_REMEMBERED_KEYS = 1024


class _RefusedError(Exception):
    def __init__(self, status: HTTPStatus, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers


class Guard:
    """ASGI middleware. Without `needs_key` a caller on this machine needs no key, and is then held to this machine's names."""

    def __init__(self, app: ASGIApp, *, needs_key: bool, limit: RateLimit) -> None:
        self._app = app
        self._needs_key = needs_key
        self._limit = limit
        self._known: dict[str, tuple[Caller, float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        try:
            _refuse_nul(request)
            found = await self._caller(request)
            await self._allow(request, found)
        except _RefusedError as refused:
            await envelope(refused.status, refused.code, refused.message, headers=refused.headers)(scope, receive, send)
            return
        token = CALLER.set(found)
        try:
            await self._app(scope, receive, send)
        finally:
            CALLER.reset(token)

    async def _caller(self, request: Request) -> Caller:
        if request.method in _READING and _is_public(request.url.path):
            return self._visitor(request)
        key = _key_of(request)
        if key is not None and (self._needs_key or keys.is_key(key)):
            return await self._holder(key)
        if self._needs_key or not _is_local(request):
            _no_key()
        _refuse_other_names(request)
        _refuse_other_sites(request)
        return ON_LOOPBACK

    def _visitor(self, request: Request) -> Caller:
        """Of what is public: a document shows jobs to who would be let in without a key, and to nobody else."""
        here = not self._needs_key and _is_local(request) and _has_own_name(request)
        return ON_LOOPBACK if here and _is_document(request.url.path) else NOBODY

    async def _holder(self, key: str) -> Caller:
        digest = keys.sha256(key)
        known, until = self._known.get(digest, (None, 0.0))
        if known is not None and time.monotonic() < until:
            return known
        try:
            found = await to_thread.run_sync(_look_up, key)
        except OUTAGES as error:
            logger.warning("no key can be checked: %s", error)
            message = "The database does not answer; try again."
            raise _RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "database_unavailable", message, {"retry-after": "2"}
            ) from error
        if found is None:
            self._known.pop(digest, None)
            raise _unauthorized("invalid_api_key", "This API key is not known, has expired or was revoked.")
        if len(self._known) >= _REMEMBERED_KEYS:
            self._known.clear()
        self._known[digest] = (found, time.monotonic() + _REMEMBERED_SECONDS)
        return found

    async def _allow(self, request: Request, found: Caller) -> None:
        if request.method in _READING and _is_public(request.url.path):
            return
        needed = _needed(request)
        if not found.may(needed):
            message = f"{request.method} {request.url.path} needs the scope {needed}; yours is {found.scope}"
            raise _RefusedError(HTTPStatus.FORBIDDEN, "scope_missing", message)
        seconds = await self._limit.wait_seconds(found.key_id or "loopback")
        if seconds:
            message = f"More than {self._limit.per_minute} requests a minute; try again in {seconds} s."
            headers = {"retry-after": str(seconds)}
            raise _RefusedError(HTTPStatus.TOO_MANY_REQUESTS, "rate_limit_exceeded", message, headers)


def _refuse_nul(request: Request) -> None:
    """PostgreSQL keeps no NUL and refuses to look for one: nothing has it in its name."""
    path: str = request.scope["path"]
    if "\0" in path:
        raise _RefusedError(HTTPStatus.NOT_FOUND, "not_found", f"no path here is {path[:80]!r}")
    if any(nul in request.scope["query_string"] for nul in (b"%00", b"\0")):
        raise _RefusedError(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", "the query holds the character NUL")


def _look_up(key: str) -> Caller | None:
    with transaction() as session:
        return keys.find_caller(session, key)


def _is_public(path: str) -> bool:
    return path in PUBLIC or path.startswith(PUBLIC_FOLDERS)


def _is_document(path: str) -> bool:
    return path == "/" or path.startswith("/jobs/")


def _key_of(request: Request) -> str | None:
    kind, _, key = request.headers.get("authorization", "").partition(" ")
    return key.strip() if kind.lower() == "bearer" else None


def _needed(request: Request) -> KeyScope:
    path = request.url.path
    if path in (KEYS_PATH, *_ACROSS_PROJECTS) or path.startswith(f"{KEYS_PATH}/"):
        return KeyScope.ADMIN
    return KeyScope.READ if request.method in _READING else KeyScope.WRITE


def _is_local(request: Request) -> bool:
    """Whether the request was sent on this machine, and not handed on by a proxy."""
    ends = (request.client and request.client.host, (request.scope.get("server") or ("",))[0])
    return all(end and is_loopback(end) for end in ends) and not any(name in request.headers for name in _FORWARDED)


def _has_own_name(request: Request) -> bool:
    found = _HOST.fullmatch(request.headers.get("host", ""))
    host = found["name"] if found else ""
    return is_loopback(host) or host.endswith(".localhost")


def _refuse_other_names(request: Request) -> None:
    """A page whose own name was made to point at this machine (DNS rebinding) still sends that name."""
    if not _has_own_name(request):
        message = f"Without an API key this service answers as localhost only, not as {request.headers.get('host', '')[:80]!r}."
        raise _RefusedError(HTTPStatus.FORBIDDEN, "host_not_allowed", message)


def _refuse_other_sites(request: Request) -> None:
    """A browser lets any page send a form here; what changes something must come from our own page, or from no page."""
    if request.method in _READING:
        return
    origin, site = request.headers.get("origin"), request.headers.get("sec-fetch-site", "none")
    own = f"{request.url.scheme}://{request.url.netloc}"
    if site not in _BY_THE_SITE_ITSELF or origin not in (None, own):
        message = "Without an API key a page of another site cannot change anything here."
        raise _RefusedError(HTTPStatus.FORBIDDEN, "cross_site_request", message)


def _no_key() -> NoReturn:
    message = "An API key is needed: send `Authorization: Bearer mhpo-...`; `mhpo keys create` makes one."
    raise _unauthorized("missing_api_key", message)


def _unauthorized(code: str, message: str) -> _RefusedError:
    return _RefusedError(HTTPStatus.UNAUTHORIZED, code, message, {"www-authenticate": "Bearer"})
