"""Where clients see the service: below a path prefix, and behind proxies that say so.

The result is an ASGI scope in which everything agrees: `root_path` is the prefix and `path` begins
with it, and scheme, `Host` and client are those that the proxy was called with. So Starlette's own
`request.base_url` and `url_for` give addresses that work for the client.
"""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from runnables.settings import PATH_PREFIX, Settings

Scope = MutableMapping[str, Any]
FORWARDED = tuple(f"x-forwarded-{name}" for name in ("prefix", "proto", "host", "for", "port"))
HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


def path_of(scope: Scope) -> str:
    """Return the path of a request below the prefix: the one that the route table knows."""
    return below(scope["path"], scope.get("root_path", "")) or "/"


def below(path: str, prefix: str) -> str:
    """Return a path without its prefix; one that lies elsewhere is returned as it is."""
    within = path == prefix or path.startswith(prefix + "/")
    return path[len(prefix) :] if within else path


class Proxies:
    """The operator's settings for prefix and proxies, applied to requests."""

    def __init__(self, settings: Settings) -> None:
        self._prefix = settings.path_prefix
        # uvicorn's reader of addresses and networks, and of X-Forwarded-Proto and -For
        self._addresses = ProxyHeadersMiddleware(_nothing, settings.trusted_proxies)

    async def placed(self, scope: Scope) -> Scope:
        """Return the scope as the client sees it.

        A trusted proxy's X-Forwarded-Prefix, -Proto, -Host and -For count, where several values
        stand in one the last: the proxy itself wrote it. Nobody behind this reads such a header.
        """
        sent = Headers(scope=scope)
        client = scope.get("client") or (None, 0)
        prefix, host = self._prefix or scope.get("root_path", ""), ""
        if client[0] in self._addresses.trusted_hosts:
            prefix = _last(sent, "x-forwarded-prefix", PATH_PREFIX) or prefix
            host = _last(sent, "x-forwarded-host", HOST)
        path = below(path_of(scope), prefix) or "/"
        headers = [pair for pair in scope["headers"] if pair[0].decode("latin-1") not in FORWARDED]
        placed: Any = {**scope, "root_path": prefix, "path": prefix + path}
        await self._addresses(placed, _nothing, _nothing)
        placed["headers"] = headers
        if host:
            MutableHeaders(scope=placed)["host"] = host
        return dict(placed)


def _last(headers: Headers, name: str, form: re.Pattern[str]) -> str:
    """Return the last value of a header, or "" where it has another form."""
    values = ",".join(headers.getlist(name)).split(",")
    value = values[-1].strip().rstrip("/")
    return value if form.fullmatch(value) else ""


async def _nothing(*_: Any) -> Any:
    """Do nothing: the middleware writes into the scope before it calls on."""
