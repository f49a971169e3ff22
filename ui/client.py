"""The service as the Gradio page sees it: its jobs API over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import httpx
from httpx_sse import EventSource

FINAL = frozenset({"succeeded", "failed", "cancelled"})
#: statuses of a service that may be there in a moment; 0: not reached at all
NOT_THERE = (0, 502, 503, 504)
#: seconds; events and images come when they come
TIMEOUT = httpx.Timeout(30, read=180)


class ServiceError(Exception):
    """An error of the service, in its own words.

    Attributes:
        field: The parameter that it is about, or "".
        status: The HTTP status; 0 when the service was not reached.
    """

    def __init__(self, message: str, *, field: str = "", status: int = 0) -> None:
        super().__init__(message)
        self.message, self.field, self.status = message, field, status


class Service:
    """A client of one service.

    Args:
        http: A client with the service's address; the paths are appended to its base URL.
        key: The API key that is used where the visitor enters none.
    """

    def __init__(self, http: httpx.AsyncClient, key: str = "") -> None:
        self._http, self._key = http, key

    async def models(self, key: str = "") -> list[dict[str, Any]]:
        """Return the answer of `GET /models`, the default first. Raise ServiceError."""
        return list((await self._send("GET", "/models", key)).json())

    async def submit(self, parameters: Mapping[str, Any], key: str = "") -> dict[str, Any]:
        """Submit a txt2img job and return its document. Raise ServiceError that names the field."""
        order = {"task": "txt2img", "parameters": dict(parameters)}
        return dict((await self._send("POST", "/jobs", key, json=order)).json())

    async def events(
        self, job: str, key: str = "", *, preview_every: int = 1
    ) -> AsyncGenerator[tuple[str, dict[str, Any]], None]:
        """Yield (event, data) until the job has ended; its state names the last event."""
        request = self._request("GET", f"/jobs/{job}/events?preview_every={preview_every}", key)
        try:
            response = await self._http.send(request, stream=True)
            try:
                await _check(response)
                async for event in EventSource(response).aiter_sse():
                    yield event.event, event.json()
                    if event.event in FINAL:
                        return
            finally:
                await response.aclose()
        except httpx.HTTPError as error:
            raise _unreachable(error) from error

    async def image(self, job: str, index: int, key: str = "") -> bytes:
        """Return the file of a job's image.

        (Its `url` is for those who see the service where it is seen from outside.)
        """
        return (await self._send("GET", f"/jobs/{job}/images/{index}", key)).content

    async def cancel(self, job: str, key: str = "") -> None:
        """Stop a job; a finished one stays as it is."""
        await self._send("DELETE", f"/jobs/{job}", key)

    def _request(self, method: str, path: str, key: str, **content: Any) -> httpx.Request:
        chosen = key or self._key
        headers = {"x-api-key": chosen} if chosen else {}
        return self._http.build_request(method, path, headers=headers, **content)

    async def _send(self, method: str, path: str, key: str, **content: Any) -> httpx.Response:
        try:
            response = await self._http.send(self._request(method, path, key, **content))
        except httpx.HTTPError as error:
            raise _unreachable(error) from error
        await _check(response)
        return response


async def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    body = await response.aread()
    try:
        raise problem(json.loads(body), response.status_code)
    except ValueError as error:
        text = f"the service answered {response.status_code} {response.reason_phrase}"
        raise ServiceError(text, status=response.status_code) from error


def problem(body: Any, status: int = 0) -> ServiceError:
    """Return the service's JSON error as an exception."""
    content = body if isinstance(body, dict) else {}
    detail = content.get("detail") or []
    if isinstance(detail, str):  # in the WebUI's form
        return ServiceError(detail, status=status)
    places = [place.get("loc") or [] for place in detail]
    names = [name for place in places for name in place if name not in ("data", "parameters")]
    field = str(names[0]) if names else ""
    message = str(content.get("error") or f"the service answered {status}")
    return ServiceError(message, field=field, status=status)


def _unreachable(error: httpx.HTTPError) -> ServiceError:
    return ServiceError(f"the service cannot be reached ({type(error).__name__})")
