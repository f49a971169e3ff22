"""One OpenAPI document of every API, and the Swagger page that shows it."""

from __future__ import annotations

from functools import cache
from html import escape
from typing import Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from api.http.operations import SECURITY_SCHEMES
from api.jobs import schema as jobs
from api.native import schema as native
from api.openai import schema as openai
from api.webui import schema as webui
from runnables.version import VERSION

TAGS = {
    "images": "Generating, changing and enlarging images, with our own parameters.",
    "jobs": "Generating later: progress, cancelling, webhooks.",
    "names": "The names that requests may use.",
    "openai": "OpenAI's image API.",
    "webui": "The Stable Diffusion WebUI's API.",
    "probes": "For whoever runs the service.",
}
PARTS = (native, jobs, openai, webui)
#: Swagger UI from the host's own files: nothing is loaded from elsewhere
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Stable Diffusion</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="{prefix}/static_content/swagger-ui.css"></head>
<body><div id="swagger-ui"></div>
<script src="{prefix}/static_content/swagger-ui-bundle.js"></script>
<script>window.ui = SwaggerUIBundle({url: "{prefix}/docs.json", dom_id: "#swagger-ui"})</script>
</body></html>
"""


def routes() -> list[Route]:
    """Return the routes, which are to be mounted at the root."""
    pages = [Route(path, _page) for path in ("/", "/docs")]
    return [*pages, *(Route(path, _document) for path in ("/docs.json", "/openapi.json"))]


@cache
def document() -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Stable Diffusion",
            "version": VERSION,
            "description": "Generate images from text, from images, and parts of images anew.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": {path: methods for part in PARTS for path, methods in part.paths().items()},
        "components": {
            "schemas": {name: model for part in PARTS for name, model in part.schemas().items()},
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


async def _page(request: Request) -> Response:
    return HTMLResponse(PAGE.replace("{prefix}", escape(request.scope.get("root_path", ""))))


async def _document(request: Request) -> Response:
    servers = [{"url": request.scope.get("root_path", "") or "/"}]
    return JSONResponse({**document(), "servers": servers})
