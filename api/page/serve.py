"""The page: one document for every address of it, and the modules, style and vendored code that it loads.

Assets lie below a digest of them all, so a browser keeps them for good and never mixes those of two versions.
"""

import gzip
import mimetypes
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import blake2b
from html import escape
from importlib.resources import files
from importlib.resources.abc import Traversable
from urllib.parse import urlencode

from fastapi import FastAPI, Request
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from api.models import is_id
from api.settings import settings

# The module that shows each address.
ADDRESSES = {"/": "jobs.js", "/compare": "compare.js", "/jobs/new": "new_job.js", "/jobs/{job_id}": "run.js"}
_ENTRY = "app.js"
_CHARTS = "chart.js"  # a page that imports it has these links too
_CHART_LINKS = (
    '<link rel="stylesheet" href="{assets}/vendor/uplot/uPlot.min.css">',
    '<script defer src="{assets}/vendor/uplot/uPlot.iife.min.js"></script>',
)
# What the module of an address reads first, to the letter: the browser asks for it together with the modules.
_CURVES = {
    "max_points": 150,
    "names": "reward,reward_std,eval/reward,step_time",
    "x": "step",
    "columns": ["mean", "min", "max"],
    "digits": 4,
}
_FIRST_READ = {
    "/": ["/v1/jobs?limit=50"],
    "/jobs/{job_id}": ["/v1/jobs/{job_id}", f"/v1/jobs/{{job_id}}/metrics?{urlencode(_CURVES, doseq=True)}"],
}
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


def serve_page(app: FastAPI) -> None:
    """Add the page to an app that has its other routes."""
    folder = files("api.page")
    contents = _read(folder / "static")
    version = _digest(contents)
    assets = {path: Asset.of(path, content) for path, content in contents.items()}
    text = (folder / "index.html").read_text(encoding="utf-8").replace("{actions}", " ".join(_actions(app)))

    # Nothing here waits for anything, so no thread is needed to answer.
    def page(address: str, module: str) -> Callable[[Request], Awaitable[HTMLResponse]]:
        document = text.replace("{links}", _links(contents, module)).replace("{assets}", f"/static/{version}")
        reads = [] if settings().needs_key else _FIRST_READ.get(address, [])  # no link can send a key

        async def answer(request: Request) -> HTMLResponse:
            whole = document.replace("{reads}", _reads(reads, request.path_params.get("job_id")))
            return HTMLResponse(whole, headers={"cache-control": "no-cache"})

        return answer

    async def asset(version_asked: str, path: str, request: Request) -> Response:
        if version_asked != version or path not in assets:
            raise HTTPException(404, f"no asset {path!r} of this version of the page")
        return assets[path].answer(request)

    for address, module in ADDRESSES.items():
        app.add_api_route(address, page(address, module), response_model=None, methods=["GET"], include_in_schema=False)
    app.add_api_route("/static/{version_asked}/{path:path}", asset, methods=["GET"], include_in_schema=False)


def _actions(app: FastAPI) -> list[str]:
    """What can be done with a job, by the routes that the app has."""
    paths = {route.path for route in app.routes if isinstance(route, APIRoute)}
    return [action for action in ("pause", "resume", "cancel", "retry") if f"/v1/jobs/{{job_id}}/{action}" in paths]


def _links(contents: dict[str, bytes], module: str) -> str:
    """Links by which a browser asks at once for all that the page will import, and not module after module."""
    modules = dict.fromkeys((*_imports(contents, _ENTRY), module, *_imports(contents, module)))
    links = [f'<link rel="modulepreload" href="{{assets}}/{name}">' for name in modules]
    return "\n".join((*links, *(_CHART_LINKS if _CHARTS in modules else ())))


def _reads(paths: list[str], job_id: str | None) -> str:
    """Links by which a browser asks for what the page will read before it has the modules that read it."""
    if job_id is not None and not is_id("job", job_id):
        return ""
    hrefs = [escape(path.replace("{job_id}", job_id or "")) for path in paths]
    return "\n".join(f'<link rel="preload" as="fetch" crossorigin href="{href}">' for href in hrefs)


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
