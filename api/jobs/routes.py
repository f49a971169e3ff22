"""The handlers of `/jobs`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any, cast, get_args

from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from api.generation import Generation
from api.http import request_id
from api.http.responses import as_header
from api.http.server_span import server_span
from api.http.signatures import Signatures
from api.jobs import events, submission
from api.jobs.document import placed
from api.jobs.job import Delivery, Job
from api.jobs.jobs import Jobs, unusable
from api.progress.record import State
from runnables.errors import Conflict, InvalidInput, Unauthorized, UnknownName

STATES = get_args(State)
DELIVERIES = get_args(Delivery)
MAX_LIMIT = 200
OF_GENERATION = ("scheduler", "num_inference_steps", "guidance_scale")  # parameters in headers
MAX_STEPS = 150  # previews at every so many steps


class JobRoutes:
    """The handlers.

    Args:
        signatures: They sign addresses that need no key.
    """

    def __init__(self, jobs: Jobs, generation: Generation, signatures: Signatures) -> None:
        self._jobs = jobs
        self._signatures = signatures
        self._generation = generation
        self._keys = generation.keys

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        return [
            Route("/jobs", self._submit, methods=["POST"]),
            Route("/jobs", self._list, methods=["GET"]),
            Route("/jobs/{id}", self._get, methods=["GET"]),
            Route("/jobs/{id}", self._cancel, methods=["DELETE"]),
            Route("/jobs/{id}/webhook", self._deliver_again, methods=["POST"]),
            Route("/jobs/{id}/links", self._links, methods=["GET"]),
            Route("/jobs/{id}/events", self._events, methods=["GET"]),
            Route("/jobs/{id}/images/{index}", self._image, methods=["GET"]),
        ]

    async def _submit(self, request: Request) -> Response:
        with server_span(request):
            return await self._accept(request)

    async def _accept(self, request: Request) -> Response:
        owner = self._keys.spend(request.headers)
        self._generation.check_ready()
        sent = await submission.read(request, self._generation.settings)
        address = request.client.host if request.client else ""
        job, new = await asyncio.to_thread(self._jobs.submit, owner, sent, address, _base(request))
        body, prefix = await asyncio.to_thread(self._jobs.document, job), _root(request)
        headers = {"Location": f"{prefix}/jobs/{job.id}"}
        return JSONResponse(placed(body, prefix), 202 if new else 200, headers=headers)

    async def _list(self, request: Request) -> Response:
        owner = self._keys.check(request.headers)
        state = cast("State | None", _choice(request, "state", STATES))
        delivery = cast("Delivery | None", _choice(request, "webhook", DELIVERIES))
        limit = _number(request, "limit", 50, 1, MAX_LIMIT)
        cursor = _number(request, "cursor", 0, 0, 2**62)
        prefix = _prefix(request)

        def listed() -> dict[str, Any]:
            found = self._jobs.page(owner, state, limit + 1, cursor or None, prefix, delivery)
            more = found[limit - 1].number if len(found) > limit else None
            documents = [self._jobs.document(job) for job in found[:limit]]
            if state is not None:  # some may have begun to run meanwhile
                documents = [document for document in documents if document["state"] == state]
            documents = [placed(document, _root(request)) for document in documents]
            return {"jobs": documents, "next": None if more is None else str(more)}

        return JSONResponse(await asyncio.to_thread(listed))

    async def _get(self, request: Request) -> Response:
        owner = self._keys.check(request.headers)
        return await self._answer(request, lambda id: self._jobs.find(owner, id))

    async def _cancel(self, request: Request) -> Response:
        owner = self._keys.check(request.headers)
        return await self._answer(request, lambda id: self._jobs.cancel(owner, id))

    async def _deliver_again(self, request: Request) -> Response:
        owner, id = self._keys.spend(request.headers), request.path_params["id"]
        job = await asyncio.to_thread(self._jobs.store.get, owner, id)
        if job is None:
            raise _unknown(id)
        again = await asyncio.to_thread(self._jobs.deliver_again, job)
        body = await asyncio.to_thread(self._jobs.document, again)
        return JSONResponse(placed(body, _root(request)), 202)

    async def _links(self, request: Request) -> Response:
        """Answer addresses for browsers: their EventSource and <img> cannot send a key."""
        owner, id = self._keys.check(request.headers), request.path_params["id"]
        found = await asyncio.to_thread(self._jobs.find, owner, id)
        if found is None:
            raise _unknown(id)
        try:
            query = await asyncio.to_thread(self._signatures.query, _signed(owner, id))
        except OSError as error:
            raise unusable(error) from error
        base = _base(request)
        links = {
            "events": f"{base}/jobs/{id}/events?{query}",
            "images": [image["url"] for image in placed(found, base, f"?{query}")["images"]],
        }
        return JSONResponse(links, headers={"Cache-Control": "no-store"})

    async def _events(self, request: Request) -> Response:
        owner, query = await asyncio.to_thread(self._reader, request)
        id, place = request.path_params["id"], _base(request) if query else _root(request)
        every = _number(request, "preview_every", 0, 0, MAX_STEPS)
        if await asyncio.to_thread(self._jobs.find, owner, id) is None:
            raise _unknown(id)

        def find() -> dict[str, Any] | None:
            found = self._jobs.find(owner, id)
            return found and placed(found, place, query)

        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        kind = "text/event-stream"
        if request.method == "HEAD":  # Starlette adds it to GET; it must not wait for the end
            return StreamingResponse((), media_type=kind, headers=headers)
        stream = events.stream(find, self._jobs.hub, (owner, id), every)
        return StreamingResponse(stream, media_type=kind, headers=headers)

    async def _image(self, request: Request) -> Response:
        (owner, _), id = await asyncio.to_thread(self._reader, request), request.path_params["id"]
        job = await asyncio.to_thread(self._jobs.store.get, owner, id)
        if job is None:
            raise _unknown(id)
        if not job.final:
            raise Conflict(f"job {id} is not finished", loc=("id",))
        numbers = {str(number): number for number in range(len(job.images))}
        index = numbers.get(request.path_params["index"])
        if index is None:
            message = f"job {id} has {len(job.images)} images, numbered from 0"
            raise UnknownName(message, loc=("index",))
        path, image = self._jobs.file(job, index), job.images[index]
        try:
            found = await asyncio.to_thread(path.stat)
        except FileNotFoundError as error:  # job and image are being forgotten, or were removed
            raise UnknownName(f"image {index} of job {id} is gone", loc=("index",)) from error
        headers = {**_headers(job, image), "Cache-Control": "private, max-age=3600"}
        kind = image["content_type"]
        return FileResponse(path, media_type=kind, headers=headers, stat_result=found)

    def _reader(self, request: Request) -> tuple[str, str]:
        """Return whose job may be read, and the query by which, of a request without a key.

        Raises:
            Unauthorized: Neither its key nor its signature is right.
        """
        query, id = request.query_params, request.path_params["id"]
        if "signature" not in query:
            return self._keys.check(request.headers), ""
        for owner in self._keys.owners:
            if self._signatures.valid(_signed(owner, id), query):
                return owner, f"?expires={query['expires']}&signature={query['signature']}"
        raise Unauthorized("this address was changed, or it has expired", loc=("signature",))

    async def _answer(
        self, request: Request, look: Callable[[str], dict[str, Any] | None]
    ) -> Response:
        id = request.path_params["id"]
        found = await asyncio.to_thread(look, id)
        if found is None:
            raise _unknown(id)
        return JSONResponse(placed(found, _root(request)))


def _root(request: Request) -> str:
    """Return the path below which this client sees the service."""
    return str(request.scope.get("root_path", ""))


def _signed(owner: str, id: str) -> str:
    """Return the name by which a job is signed; no file of `Links` has such a name."""
    return f"job {owner} {id}"


def _base(request: Request) -> str:
    """Return the whole address below which this client sees the service."""
    return str(request.base_url).rstrip("/")


def _headers(job: Job, image: dict[str, Any]) -> dict[str, str]:
    """Return the headers that the synchronous endpoints send."""
    values = {
        **{name: image.get(name) for name in ("seed", "width", "height", "finish_reason", "hint")},
        **{name: job.parameters.get(name) for name in OF_GENERATION},
    }
    return {
        name.replace("_", "-"): as_header(str(value))
        for name, value in values.items()
        if value is not None
    }


def _choice(request: Request, name: str, choices: Collection[str]) -> str | None:
    chosen = request.query_params.get(name)
    if chosen is not None and chosen not in choices:
        raise InvalidInput(f"{name} must be one of {', '.join(choices)}", loc=(name,))
    return chosen


def _prefix(request: Request) -> str:
    prefix = request.query_params.get("prefix", "")
    if prefix and not request_id.ID.fullmatch(prefix):
        raise InvalidInput("prefix must be the beginning of a job's id", loc=("prefix",))
    return prefix


def _number(request: Request, name: str, default: int, least: int, most: int) -> int:
    sent = request.query_params.get(name)
    if sent is None:
        return default
    if not (sent.isascii() and sent.isdecimal() and len(sent) < 20 and least <= int(sent) <= most):
        raise InvalidInput(f"{name} must be a whole number from {least} to {most}", loc=(name,))
    return int(sent)


def _unknown(id: str) -> UnknownName:
    return UnknownName(f"there is no job {id!r}", loc=("id",))
