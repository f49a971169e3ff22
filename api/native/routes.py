"""The handlers of our own endpoints: generation, what there is, and probes."""

from __future__ import annotations

import asyncio
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from api.generation import Generation
from api.http import forms, request_id, responses
from api.http.decoding import decoded
from api.http.forms import Form
from api.native import imagine
from runnables.errors import ConfigurationError, EngineFailed, NotReady, OverCapacity, UnknownName
from runnables.images import verify
from runnables.parameters import MODELS, AnyParameters
from runnables.runnable import LISTED, Listed
from runnables.version import versions

CHANGES = 2  # models that may be loaded or unloaded at a time, each in a thread that all share
READY = ("readyz", "health", "v1/health")  # others' names of the same probe


class NativeRoutes:
    """The handlers."""

    def __init__(self, generation: Generation) -> None:
        self._generation = generation
        self._changes = asyncio.Semaphore(CHANGES)

    def routes(self) -> list[Route]:
        """Return the routes, which are to be mounted at the root."""
        return [
            *(
                Route(f"/{task}", self._task(model), methods=["POST"])
                for task, model in MODELS.items()
            ),
            Route("/imagine", self._imagine, methods=["GET"]),
            *(Route(f"/{name}", self._list(name)) for name in LISTED),
            Route("/models", self._models),
            Route("/verify", self._verify, methods=["POST"]),
            Route("/models/{name}/load", self._change_model(load=True), methods=["POST"]),
            Route("/models/{name}/unload", self._change_model(load=False), methods=["POST"]),
            Route("/version", _version),
            Route("/healthz", self._alive),
            Route("/livez", self._alive),
            *(Route(f"/{name}", self._ready) for name in READY),
        ]

    def _task(self, model: type[AnyParameters]) -> Any:
        """Return the handler of one task."""

        async def generate(request: Request) -> Response:
            generation = self._generation
            with generation.admitted(request, model.task) as owner:
                form = await forms.read(request, model, generation.settings)
                accept = request.headers.get("accept", "")
                chosen = responses.choose_format(form.parameters, accept)
                result = await generation.run(request, owner, form)
                return await responses.image_response(
                    result, chosen, generation.settings, request_id.of(request)
                )

        return generate

    async def _imagine(self, request: Request) -> Response:
        if request.method == "HEAD":  # Starlette adds it to GET; it would generate for nobody
            raise HTTPException(405, headers={"Allow": "GET"})
        generation = self._generation
        with generation.admitted(request, "txt2img") as owner:
            form = Form(imagine.read(request))
            result = await generation.run(request, owner, form)
            return await responses.image_response(
                result, "png", generation.settings, request_id.of(request)
            )

    async def _verify(self, request: Request) -> Response:
        """Answer what an image's file says about its origin."""
        self._generation.keys.spend(request.headers)
        settings = self._generation.settings
        forms.expect_multipart(request)
        async with forms.parts(request) as form:
            forms.check_names(form, {"img"})
            data = await forms.file_bytes(form.get("img"), "img", settings)
        return JSONResponse(await decoded(verify.inspect, data, settings, "img"))

    def _list(self, kind: Listed) -> Any:
        """Return the handler of one list of names."""

        async def names(request: Request) -> Response:
            self._generation.keys.check(request.headers)
            return JSONResponse(await asyncio.to_thread(self._generation.runnable.listed, kind))

        return names

    async def _models(self, request: Request) -> Response:
        self._generation.keys.check(request.headers)
        self._generation.check_ready()
        return JSONResponse(await asyncio.to_thread(self._generation.runnable.models))

    def _change_model(self, *, load: bool) -> Any:
        """Return the handler that loads or unloads a model, and answers as `/models` does."""

        async def change(request: Request) -> Response:
            generation, name = self._generation, request.path_params["name"]
            generation.keys.check_operator(request.headers)
            generation.check_ready()
            if self._changes.locked():
                raise OverCapacity(f"{CHANGES} models are changing already; try again later")
            try:
                async with self._changes:
                    await asyncio.to_thread(generation.runnable.change_model, name, load=load)
            except (UnknownName, ConfigurationError) as error:
                error.loc = ("name",)
                raise
            models = await asyncio.to_thread(generation.runnable.models)
            return JSONResponse(next(one for one in models if one["name"] == name))

        return change

    async def _ready(self, request: Request) -> Response:
        self._generation.measure()
        self._generation.check_ready()
        if not self._generation.started:
            raise NotReady("the stored jobs are being read")
        return PlainTextResponse("ready\n")

    async def _alive(self, request: Request) -> Response:
        if not self._generation.runnable.alive:
            raise EngineFailed("the engine has failed, and the service has to be restarted")
        return PlainTextResponse("alive\n")


async def _version(request: Request) -> Response:
    return JSONResponse(versions())
