"""The handlers of `/v1`: images and models, as OpenAI's SDKs call them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import ExitStack

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from api.generation import Generation
from api.http import forms, request_id
from api.http.forms import Form
from api.http.responses import in_thread
from api.openai import answers, edits, stream, translate
from api.openai.translate import ImagesBody
from api.progress.live import Hub
from runnables.errors import InvalidInput, UnknownName
from runnables.parameters import TextToImage

Read = Callable[[Request], Awaitable[tuple[ImagesBody, Form]]]


class OpenAIRoutes:
    """The handlers.

    Args:
        hub: Streams hear of previews there.
    """

    def __init__(self, generation: Generation, hub: Hub) -> None:
        self._generation = generation
        self._hub = hub

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        return [
            Route("/v1/images/generations", self._generations, methods=["POST"]),
            Route("/v1/images/edits", self._edits, methods=["POST"]),
            Route("/v1/images/variations", self._variations, methods=["POST"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/models/{id:path}", self._model, methods=["GET"]),
        ]

    async def _generations(self, request: Request) -> Response:
        return await self._serve(request, stream.GENERATION, self._read_generation)

    async def _edits(self, request: Request) -> Response:
        return await self._serve(request, stream.EDIT, self._read_edit)

    async def _variations(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        raise InvalidInput("variations need a prompt here: use images/edits without a mask")

    async def _read_generation(self, request: Request) -> tuple[ImagesBody, Form]:
        forms.expect_json(request)
        body = forms.parse(ImagesBody, await request.body())
        return body, Form(translate.parameters(body, TextToImage))

    async def _read_edit(self, request: Request) -> tuple[ImagesBody, Form]:
        return await edits.read(request, self._generation.settings)

    async def _serve(self, request: Request, kind: stream.Kind, read: Read) -> Response:
        generation = self._generation
        with ExitStack() as stack:
            owner = stack.enter_context(generation.admitted(request, kind.task))
            body, form = await read(request)
            if body.stream:
                key = (owner, request_id.of(request))
                listener = stack.enter_context(self._hub.listening(key, 0))
                ticket = await generation.submit(request, owner, form)
                stack.callback(generation.release, ticket)
                events = stream.events(generation, ticket, listener, body, kind)
                return stream.Events(events, stack.pop_all())
            result = await generation.run(request, owner, form)
            return await in_thread(answers.images, result, body, generation)

    # -- models -----------------------------------------------------------------------------

    async def _models(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        self._generation.check_ready()
        data = [_described(name) for name in self._generation.models]
        return JSONResponse({"object": "list", "data": data})

    async def _model(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        self._generation.check_ready()
        name, known = request.path_params["id"], self._generation.models
        if name not in known:
            raise UnknownName(
                f"there is no model {name!r}; known: {', '.join(known)}", loc=("model",)
            )
        return JSONResponse(_described(name))


def _described(name: str) -> dict[str, object]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "stable-diffusion-service"}
