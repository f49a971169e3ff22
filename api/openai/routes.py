"""The handlers of `/v1`: images and models, as OpenAI's SDKs call them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

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
from runnables.settings import Settings

FILES = "/v1/images/files/"
Read = Callable[[Request, Settings], Awaitable[tuple[ImagesBody, Form]]]


async def _read(request: Request, settings: Settings) -> tuple[ImagesBody, Form]:
    forms.expect_json(request)
    body = forms.parse(ImagesBody, await request.body())
    return body, Form(translate.parameters(body, TextToImage))


#: endpoint below `/v1/images` -> what its streams are called, and what reads its requests
IMAGES: dict[str, tuple[stream.Kind, Read]] = {
    "generations": (stream.GENERATION, _read),
    "edits": (stream.EDIT, edits.read),
    "variations": (stream.EDIT, edits.read_variation),
}


@dataclass(eq=False)
class OpenAIRoutes:
    """The handlers.

    Args:
        hub: Streams hear of previews there.
        links: It keeps the images of answers with addresses, and answers these.
        elsewhere: It keeps them in place of `links`, and returns whole addresses.
    """

    generation: Generation
    hub: Hub
    links: Links
    elsewhere: answers.Keep | None = None

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        return [
            *(
                Route(f"/v1/images/{name}", partial(self._serve, kind, read), methods=["POST"])
                for name, (kind, read) in IMAGES.items()
            ),
            Route(FILES + "{name}", self._file, methods=["GET"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{id:path}", self._model, methods=["GET"]),
        ]

    async def _serve(self, kind: stream.Kind, read: Read, request: Request) -> Response:
        generation = self.generation
        with ExitStack() as stack:
            owner = stack.enter_context(generation.admitted(request, kind.task))
            started = time.monotonic()
            body, form = await read(request, generation.settings)
            ignored = body.ignored(generation.settings)
            headers = {"x-ignored": ", ".join(ignored)} if ignored else {}
            if body.stream:
                ticket = await generation.submit(request, owner, form)
                stack.callback(generation.release, ticket)
                listener = stack.enter_context(self.hub.listening((owner, ticket.id), 0))
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
        if self.elsewhere:
            return self.elsewhere
        base = str(request.base_url).rstrip("/")
        return lambda data, kind: f"{base}{FILES}{self.links.keep(data, kind)}"

    async def _file(self, request: Request) -> Response:
        """Answer an address: whoever has it needs no key."""
        name = request.path_params["name"]
        path = await run_in_threadpool(self.links.find, name, request.query_params)
        kind = f"image/{path.suffix.removeprefix('.')}"
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private"})

    # -- models -----------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        data = [_described(name) for name in await self._names(request)]
        return JSONResponse({"object": "list", "data": data})

    async def _names(self, request: Request) -> list[str]:
        self.generation.keys.check(request.headers)
        self.generation.check_ready()
        return await asyncio.to_thread(self.generation.models)

    async def _model(self, request: Request) -> Response:
        name, known = request.path_params["id"], await self._names(request)
        if name not in known:
            raise UnknownName(
                f"there is no model {name!r}; known: {', '.join(known)}", loc=("model",)
            )
        return JSONResponse(_described(name))


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "stable-diffusion-service"}
