"""`/docs`: every route, in Swagger UI. Its script and style come from here, so it works offline and trusts no other host."""

import base64
import hashlib
import re

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.staticfiles import StaticFiles
from starlette.responses import HTMLResponse

from api.headers import CONTENT_POLICY

ASSETS = "/docs/assets"


def serve_docs(app: FastAPI) -> None:
    """Add the page to an app that was made with `docs_url=None`."""
    page = get_swagger_ui_html(
        openapi_url=app.openapi_url or "",
        title=f"{app.title} API",
        swagger_js_url=f"{ASSETS}/swagger-ui-bundle.js",
        swagger_css_url=f"{ASSETS}/swagger-ui.css",
        swagger_favicon_url=f"{ASSETS}/favicon.png",
    )
    content = bytes(page.body)
    # Swagger UI styles its elements one by one; the page's own script is let in by its hash.
    policy = f"{CONTENT_POLICY}; style-src 'self' 'unsafe-inline'; script-src 'self' {' '.join(_hashes(content))}"
    app.mount(ASSETS, StaticFiles(packages=[("fastapi_offline", "static")]), name="docs-assets")

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        return HTMLResponse(content, headers={"content-security-policy": policy})


def _hashes(page: bytes) -> list[str]:
    """The Content-Security-Policy sources of the scripts that are written into a page."""
    scripts = re.findall(rb"<script>(.*?)</script>", page, re.DOTALL)
    return [f"'sha256-{base64.b64encode(hashlib.sha256(script).digest()).decode()}'" for script in scripts]
