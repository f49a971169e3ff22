"""The span of a request to the HTTP service.

The queue's front door uses `tracing` without it, because Lambda's package has no Starlette.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from starlette.requests import Request

from api.http import request_id, tracing
from api.http.proxies import path_of


def server_span(request: Request) -> AbstractContextManager[None]:
    """Trace the answer to a request that generates, or that submits a job."""
    about = {"http.request.method": request.method, "url.path": request.url.path}
    about["request.id"] = request_id.of(request)
    return tracing.answer(f"{request.method} {path_of(request.scope)}", request.headers, about)
