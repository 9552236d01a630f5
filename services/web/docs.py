"""The page /docs: Swagger UI, served from files of a package; it works offline and loads nothing from elsewhere.

The files are those of the package fastapi-standalone-docs (MIT; Swagger UI itself: Apache-2.0). Its code is not used.
"""

import html
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import FastAPI, Response
from fastapi.responses import FileResponse, HTMLResponse

from k2d.errors import NotFound, install_hint

PACKAGE: Final = "fastapi_standalone_docs"
FILES: Final = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css", "LICENSE": "text/plain"}
START: Final = "start.js"
CONTENT_SECURITY_POLICY: Final = (  # Swagger UI sets style attributes, and has images as data: URLs
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PAGE: Final = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<link rel="stylesheet" href="docs/swagger-ui.css">
<link rel="icon" href="data:,">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
_OPTIONS: Final = {
    "url": "openapi.json",
    "dom_id": "#swagger-ui",
    "deepLinking": True,
    "validatorUrl": None,  # it would send the description to a server elsewhere
}


def install(app: FastAPI) -> None:
    """Add /docs and its files to an app that was made with `docs_url=None, redoc_url=None`."""

    @app.get("/docs", include_in_schema=False)
    def page() -> HTMLResponse:
        headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
        return HTMLResponse(_PAGE.format(title=html.escape(app.title)), headers=headers)

    @app.get("/docs/{asset}", include_in_schema=False)
    def file(asset: str) -> Response:
        if asset == START:
            return Response(f"SwaggerUIBundle({json.dumps(_OPTIONS)})\n", media_type="text/javascript")
        if asset not in FILES:
            raise NotFound(f"there is no file {asset[:100]!r}", hint="the page is /docs")
        return FileResponse(_folder() / asset, media_type=FILES[asset], headers={"Cache-Control": "max-age=86400"})


def _folder() -> Path:
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise NotFound("the files of /docs are not installed", hint=install_hint("api"))
    return Path(spec.submodule_search_locations[0]) / "static" / "swagger"
