"""The handlers of `/v1`: images and models, as OpenAI's SDKs call them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from api.generation import Generation
from api.http import forms
from api.http.forms import Form
from api.http.links import Links
from api.http.responses import cache_header, in_thread
from api.openai import answers, edits, stream, translate
from api.openai.translate import ImagesBody
from api.progress.live import Hub
from runnables.errors import UnknownName
from runnables.parameters import TextToImage

FILES = "/v1/images/files/"
Read = Callable[[Request], Awaitable[tuple[ImagesBody, Form]]]


class OpenAIRoutes:
    """The handlers.

    Args:
        hub: Streams hear of previews there.
        links: It keeps the images of answers with addresses, and answers these.
        elsewhere: It keeps them in place of `links`, and returns whole addresses.
    """

    def __init__(
        self, generation: Generation, hub: Hub, links: Links, elsewhere: answers.Keep | None = None
    ) -> None:
        self._generation = generation
        self._hub = hub
        self._links = links
        self._elsewhere = elsewhere

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        return [
            Route("/v1/images/generations", self._generations, methods=["POST"]),
            Route("/v1/images/edits", self._edits, methods=["POST"]),
            Route("/v1/images/variations", self._variations, methods=["POST"]),
            Route(FILES + "{name}", self._file, methods=["GET"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{id:path}", self._model, methods=["GET"]),
        ]

    async def _generations(self, request: Request) -> Response:
        return await self._serve(request, stream.GENERATION, self._read_generation)

    async def _edits(self, request: Request) -> Response:
        return await self._serve(request, stream.EDIT, self._read_edit)

    async def _variations(self, request: Request) -> Response:
        return await self._serve(request, stream.EDIT, self._read_variation)

    async def _read_generation(self, request: Request) -> tuple[ImagesBody, Form]:
        forms.expect_json(request)
        body = forms.parse(ImagesBody, await request.body())
        return body, Form(translate.parameters(body, TextToImage))

    async def _read_edit(self, request: Request) -> tuple[ImagesBody, Form]:
        return await edits.read(request, self._generation.settings)

    async def _read_variation(self, request: Request) -> tuple[ImagesBody, Form]:
        return await edits.read_variation(request, self._generation.settings)

    async def _serve(self, request: Request, kind: stream.Kind, read: Read) -> Response:
        generation = self._generation
        with ExitStack() as stack:
            owner = stack.enter_context(generation.admitted(request, kind.task))
            started = time.monotonic()
            body, form = await read(request)
            headers = _ignored(body.ignored(generation.settings))
            if body.stream:
                ticket = await generation.submit(request, owner, form)
                stack.callback(generation.release, ticket)
                listener = stack.enter_context(self._hub.listening((owner, ticket.id), 0))
                outcome = generation.outcome(request)
                events = stream.events(generation, outcome, ticket, listener, body, kind)
                return stream.Events(events, stack.pop_all(), headers)
            result = await generation.run(request, owner, form)
            response = await in_thread(
                answers.images, result, body, generation, self._keep_for(request)
            )
            headers["openai-processing-ms"] = f"{1000 * (time.monotonic() - started):.0f}"
            response.headers.update(headers | cache_header(result))
            return response

    def _keep_for(self, request: Request) -> answers.Keep:
        """Return what keeps an image and returns its address, as this caller reaches us."""
        if self._elsewhere:
            return self._elsewhere
        base = str(request.base_url).rstrip("/")
        return lambda data, kind: f"{base}{FILES}{self._links.keep(data, kind)}"

    async def _file(self, request: Request) -> Response:
        """Answer an address: whoever has it needs no key."""
        name = request.path_params["name"]
        path = await run_in_threadpool(self._links.find, name, request.query_params)
        kind = f"image/{path.suffix.removeprefix('.')}"
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private"})

    # -- models -----------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        self._generation.check_ready()
        names = await asyncio.to_thread(self._generation.models)
        data = [_described(name) for name in names]
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        self._generation.check_ready()
        name, known = request.path_params["id"], await asyncio.to_thread(self._generation.models)
        if name not in known:
            raise UnknownName(
                f"there is no model {name!r}; known: {', '.join(known)}", loc=("model",)
            )
        return JSONResponse(_described(name))


def _ignored(names: list[str]) -> dict[str, str]:
    """Return the header that says which fields of the request did nothing."""
    return {"x-ignored": ", ".join(names)} if names else {}


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "stable-diffusion-service"}
