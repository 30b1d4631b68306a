"""The page: a document for each of its addresses, and the modules, style and vendored code that these load.

A document shows what there is before any script has run, to a caller that needs no key; the scripts keep it up to date by
the same templates. Assets lie below a digest of them all, so a browser keeps them for good and never mixes two versions.
"""

import gzip
import logging
import mimetypes
import re
from base64 import b64encode
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlencode

from anyio import move_on_after, to_thread
from fastapi import APIRouter, FastAPI, Request
from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from api.caller import CALLER, NOBODY
from api.database import OUTAGES, reading_sessions
from api.dependencies import SessionDep
from api.headers import CONTENT_POLICY
from api.models import Status, is_id
from api.page.views import TEMPLATES, jobs_page, rows, run_page, top
from api.record import UnknownJobError
from api.record_read import find_job

logger = logging.getLogger(__name__)

_FIRST_SECONDS = 2.0  # that a document waits for the record
_ENTRY = "app.js"
_CHARTS = "chart.js"  # a page that imports it has the chart library too
_MODULES = ("jobs.js", "compare.js", "new_job.js", "run.js")  # each shows what its documents are for
_STYLE, _CHART_STYLE = "page.css", "vendor/uplot/uPlot.min.css"
# What the module of a run reads first, to the letter: the browser asks for it together with the modules.
_CURVES = {
    "max_points": 150,
    "names": "reward,reward_std,eval/reward,step_time",
    "x": "step",
    "columns": ["mean", "min", "max"],
    "digits": 4,
}
_RUN_READS = ("/v1/jobs/{job_id}", f"/v1/jobs/{{job_id}}/metrics?{urlencode(_CURVES, doseq=True)}")
_LOOKED_AT_ANEW = {"cache-control": "private, no-cache"}
_IMPORT = re.compile(r"""^import .* from "\./([\w/.-]+)";$""", re.MULTILINE)
_FOREVER = "public, max-age=31536000, immutable"
_LEAST_TO_COMPRESS = 1024  # bytes
_TYPES = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file as it is sent, and the same compressed."""

    content: bytes
    compressed: bytes
    media_type: str

    @classmethod
    def of(cls, path: str, content: bytes) -> "Asset":
        suffix = path[path.rfind(".") :]
        media_type = _TYPES.get(suffix) or mimetypes.guess_type(path)[0] or "text/plain"
        return cls(content, gzip.compress(content, mtime=0), media_type)

    def answer(self, request: Request) -> Response:
        headers = {"cache-control": _FOREVER, "vary": "accept-encoding"}
        if len(self.content) < _LEAST_TO_COMPRESS or "gzip" not in request.headers.get("accept-encoding", ""):
            return Response(self.content, media_type=self.media_type, headers=headers)
        return Response(self.compressed, media_type=self.media_type, headers={**headers, "content-encoding": "gzip"})


@dataclass(frozen=True, slots=True)
class Frame:
    """What the documents of one module have in common."""

    modules: tuple[str, ...]  # it, the entry, and all that they import
    charts: bool
    style: Markup
    policy: str  # that of every answer, and this very style: what is seen first waits for nothing else

    @classmethod
    def of(cls, module: str, contents: dict[str, bytes]) -> "Frame":
        modules = tuple(dict.fromkeys((*_imports(contents, _ENTRY), module, *_imports(contents, module))))
        charts = _CHARTS in modules
        style = b"".join(contents[name] for name in (_STYLE, *([_CHART_STYLE] if charts else [])))
        digest = b64encode(sha256(style).digest()).decode()
        policy = f"{CONTENT_POLICY}; style-src 'self' 'sha256-{digest}'"
        return cls(modules, charts, Markup(style.decode()), policy)


def serve_page(app: FastAPI) -> None:
    """Add the page to an app."""
    contents = _read(files("api.page") / "static")
    version = _digest(contents)
    assets = {path: Asset.of(path, content) for path, content in contents.items()}
    frames = {module: Frame.of(module, contents) for module in _MODULES}
    router = APIRouter(include_in_schema=False)

    def document(module: str, content: str = "", reads: Sequence[str] = ()) -> HTMLResponse:
        frame, template = frames[module], TEMPLATES.get_template("document.html")
        whole = template.render(frame=frame, assets=f"/static/{version}", reads=reads, content=content)
        return HTMLResponse(whole, headers={**_LOOKED_AT_ANEW, "content-security-policy": frame.policy})

    @router.get("/")
    async def jobs() -> HTMLResponse:
        return document("jobs.js", await _first(jobs_page))

    @router.get("/compare")
    async def compare() -> HTMLResponse:
        return document("compare.js")

    @router.get("/jobs/new")
    async def new_job() -> HTMLResponse:
        return document("new_job.js")

    @router.get("/jobs/{job_id}")
    async def run(job_id: str) -> HTMLResponse:
        reads = [path.format(job_id=job_id) for path in _RUN_READS] if _may_read() and is_id("job", job_id) else []
        return document("run.js", await _first(lambda session: run_page(session, job_id)), reads)

    @router.get("/fragments/jobs")
    def list_rows(session: SessionDep, status: Status | None = None, after: str | None = None) -> HTMLResponse:
        return HTMLResponse(rows(session, status, after), headers=_LOOKED_AT_ANEW)

    @router.get("/fragments/jobs/{job_id}")
    def run_top(job_id: str, session: SessionDep) -> HTMLResponse:
        return HTMLResponse(top(session, find_job(session, job_id)), headers=_LOOKED_AT_ANEW)

    @router.get("/static/{version_asked}/{path:path}")
    async def asset(version_asked: str, path: str, request: Request) -> Response:
        if version_asked != version or path not in assets:
            raise HTTPException(404, f"no asset {path!r} of this version of the page")
        return assets[path].answer(request)

    app.include_router(router)


async def _first(content: Callable[[Session | None], Markup]) -> Markup:
    """A document's content, without data where the caller has not said who they are or the record cannot be read at once.

    The scripts then ask for the data, with a key if there is one, and say what is wrong: a document always comes.
    """
    if _may_read():
        with move_on_after(_FIRST_SECONDS):
            return await to_thread.run_sync(_read_first, content, abandon_on_cancel=True)
    return content(None)


def _read_first(content: Callable[[Session | None], Markup]) -> Markup:
    try:
        with reading_sessions()() as session:
            return content(session)
    except (UnknownJobError, *OUTAGES):
        return content(None)
    except Exception:  # whatever is wrong with a job's row: the page itself still comes, and says so
        logger.exception("a document is sent without its data")
        return content(None)


def _may_read() -> bool:
    return CALLER.get() not in (None, NOBODY)


def _imports(contents: dict[str, bytes], module: str) -> dict[str, None]:
    """Every module that `module` imports, and those import."""
    found: dict[str, None] = {}
    waiting = [module]
    while waiting:
        new = [name for name in _IMPORT.findall(contents[waiting.pop()].decode()) if name not in found]
        found |= dict.fromkeys(new)
        waiting += new
    return found


def _read(folder: Traversable, prefix: str = "") -> dict[str, bytes]:
    """Every file below `folder` by its path."""
    found: dict[str, bytes] = {}
    for entry in sorted(folder.iterdir(), key=lambda each: each.name):
        path = f"{prefix}{entry.name}"
        found.update(_read(entry, f"{path}/") if entry.is_dir() else {path: entry.read_bytes()})
    return found


def _digest(contents: dict[str, bytes]) -> str:
    whole = blake2b(digest_size=8)
    for path, content in contents.items():
        whole.update(f"{path}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()
