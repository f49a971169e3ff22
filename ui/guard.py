"""A guard before the page: uploads need the key, and are checked before Gradio reads them.

Gradio takes uploads from everybody, and decodes pictures of any size. Here a request that brings
files is read whole (it is limited), its key is checked, and then the size in the header of each
picture; only then it goes on to Gradio.
"""

from __future__ import annotations

import asyncio
import io
import warnings
from collections.abc import AsyncGenerator, Callable
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import unquote

from PIL import Image, UnidentifiedImageError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.responses import PlainTextResponse, Response

from ui.client import Service, ServiceError

Scope = Any
Asgi = Callable[..., Any]
#: the cookie in which the page keeps the key that the visitor has entered
COOKIE = "sd_page_key"
MAX_SIDE = 16_384
#: scans of a progressive JPEG, each of which costs as much as a whole picture, and what begins one
MAX_SCANS, SCAN = 100, b"\xff\xda"
MAX_PLAIN = 4_000_000  # bytes of a request without files
UPLOADS_AT_ONCE = 4


class Guard:
    """ASGI middleware.

    Args:
        max_bytes: The most bytes of a request with files.
        max_pixels: The most pixels of a picture.
    """

    def __init__(self, app: Asgi, service: Service, max_bytes: int, max_pixels: int) -> None:
        self._app, self._service = app, service
        self._max_bytes, self._max_pixels = max_bytes, max_pixels
        self._room = asyncio.Semaphore(UPLOADS_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Asgi, send: Asgi) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] != "http" or scope["method"] not in ("POST", "PUT"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if not headers.get("content-type", "").startswith("multipart/"):
            await self._app(scope, _limited(receive, MAX_PLAIN), send)
            return
        try:
            await self._check_key(headers)
            async with self._room:
                body = await _read(receive, self._max_bytes)
                await self._check_pictures(headers, body)
                await self._app(scope, _replayed(body, receive), send)
        except Refused as error:
            await error.response(scope, receive, send)

    async def _check_key(self, headers: Headers) -> None:
        cookies = SimpleCookie(headers.get("cookie", ""))
        key = unquote(cookies[COOKIE].value) if COOKIE in cookies else ""
        try:
            await self._service.check_key(key)
        except ServiceError as error:
            raise Refused(error.status or 503, error.message) from error

    async def _check_pictures(self, headers: Headers, body: bytes) -> None:
        async def stream() -> AsyncGenerator[bytes, None]:
            yield body
            yield b""

        try:
            form = await MultiPartParser(headers, stream(), max_part_size=MAX_PLAIN).parse()
        except (MultiPartException, LookupError, UnicodeError) as error:
            raise Refused(400, f"not multipart: {error}") from error
        try:
            for _, part in form.multi_items():
                if isinstance(part, UploadFile):
                    self._check_picture(await part.read())
        finally:
            await form.close()

    def _check_picture(self, data: bytes) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
                image = Image.open(io.BytesIO(data))
        except Image.DecompressionBombError as error:
            raise Refused(413, "this picture has too many pixels") from error
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError):
            return  # no picture: the service says so when it gets it
        if image.format in ("JPEG", "MPO") and data.count(SCAN) > MAX_SCANS:
            raise Refused(413, f"this picture has more than {MAX_SCANS} scans")
        if image.width * image.height > self._max_pixels or max(image.size) > MAX_SIDE:
            size = f"{image.width}x{image.height}"
            limit = f"{self._max_pixels} pixels, or {MAX_SIDE} a side"
            raise Refused(413, f"this picture is {size}, over the limit of {limit}")


class Refused(Exception):
    """An error: a request is not passed on."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.response: Response = PlainTextResponse(reason, status)


async def _read(receive: Asgi, limit: int) -> bytes:
    body = bytearray()
    more = True
    while more:
        message: Any = await receive()
        if message["type"] == "http.disconnect":
            raise Refused(400, "the request ended early")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise Refused(413, f"the upload is larger than {limit / 1e6:g} MB")
    return bytes(body)


def _replayed(body: bytes, receive: Asgi) -> Asgi:
    """Return a `receive` with this body; after it, that of the server."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Any:
        return messages.pop() if messages else await receive()

    return replay


def _limited(receive: Asgi, limit: int) -> Asgi:
    """Return a `receive` that ends a body which is too long, as if the client had gone."""
    total = 0

    async def limited() -> Any:
        nonlocal total
        message: Any = await receive()
        total += len(message.get("body", b""))
        return message if total <= limit else {"type": "http.disconnect"}

    return limited
