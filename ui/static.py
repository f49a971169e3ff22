"""The web page beside the service: plain files, which call the service's own API."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

FILES = Path(__file__).with_name("web")
#: Everything comes from this service. Previews are `data:` addresses; pictures that were loaded
#: with an API key, or chosen from a disk, are `blob:` addresses.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # asked for again each time, and sent again when it has changed
}


class Page:
    """An ASGI application: the files of the page, with headers that keep everything else out."""

    def __init__(self) -> None:
        self._files = StaticFiles(directory=FILES, html=True)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""

        async def sealed(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        await self._files(scope, receive, sealed)


def routes(path: str = "/ui") -> list[BaseRoute]:
    """Return the routes of the page.

    Args:
        path: The folder of the page, one level below the API, which its scripts rely on.
    """
    folder = f"{path.strip('/')}/"

    async def enter(_: object) -> Response:
        # a relative address holds behind every proxy
        return Response(status_code=307, headers={"Location": folder})

    return [Route(path, enter), Mount(path, Page())]
