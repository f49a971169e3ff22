"""The route table: what every host (BentoML, Ray Serve) answers with."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from api import errors as error_forms
from api import openapi
from api.generation import Drawing
from api.http import forms, request_id, responses, tracing
from api.http.keys import Keys
from api.jobs.jobs import Jobs
from api.jobs.routes import JobRoutes
from api.native.imagine import ImagineRoute
from api.openai.routes import OpenAIRoutes
from api.webui.routes import WebUIRoutes
from runnables.errors import StableDiffusionError
from runnables.metrics import Metrics
from runnables.parameters import MODELS, AnyParameters
from runnables.runnable import Runnable

logger = logging.getLogger(__name__)
#: what the runnable lists under the same name: names that requests may use
LISTS = ("samplers", "loras", "embeddings", "controlnets", "upscalers")
GAUGE_S = 1.0  # how often the gauges are read


class Api:
    """Handlers around one runnable."""

    def __init__(self, runnable: Runnable, metrics: Metrics | None = None) -> None:
        self.runnable = runnable
        self.settings = runnable.settings
        self.keys = Keys(self.settings.api_keys)
        self.jobs = Jobs(runnable, metrics)
        self._stopped = threading.Event()
        self._metrics = metrics
        self.drawing = Drawing(runnable, self.keys, self.jobs.requests, metrics)

    @property
    def failure(self) -> str | None:
        """Why the model could not be loaded: told to everybody who asks."""
        return self.drawing.failure

    @failure.setter
    def failure(self, reason: str | None) -> None:
        self.drawing.failure = reason

    def app(self) -> ASGIApp:
        """The ASGI application; CORS lies around all of it, so browsers may read every error."""
        return self._with_cors(self._routed())

    def start(self) -> None:
        """To be called once the runnable has started: go on with stored jobs."""
        self.jobs.start()
        threading.Thread(target=self._gauge, name="gauges", daemon=True).start()

    def stop(self) -> None:
        """Finish what was accepted, the runnable included, and let go."""
        self._stopped.set()
        self.jobs.stop()
        self.runnable.drain()
        self.runnable.close()
        self.jobs.close()
        tracing.flush()

    def _gauge(self) -> None:
        """What no event tells: how long the queues are now."""
        while self._metrics:
            try:
                self.drawing.measure()
                self._metrics.waiting_jobs(self.jobs.counts())
            except Exception:
                logger.exception("the gauges could not be read; trying again")
            if self._stopped.wait(GAUGE_S):
                return

    def _routed(self) -> Starlette:
        drawing = [
            Route(f"/{task}", self._drawer(model), methods=["POST"])
            for task, model in MODELS.items()
        ]
        return Starlette(
            routes=[
                Route("/", _swagger),
                Route("/docs.json", _document),
                *drawing,
                *JobRoutes(self.jobs, self.settings, self.keys, self.drawing.check_ready).routes(),
                *OpenAIRoutes(self.drawing, self.jobs.hub).routes(),
                *WebUIRoutes(self.drawing, self.jobs.hub).routes(),
                *ImagineRoute(self.drawing).routes(),
                *(Route(f"/{name}", self._lister(name)) for name in LISTS),
                Route("/models", self._models),
                Route("/healthz", _alive),
                Route("/livez", _alive),
                Route("/readyz", self._ready),
            ],
            exception_handlers={
                StableDiffusionError: _handle,
                HTTPException: _handle_http,
                Exception: _handle_unknown,
            },
        )

    def _with_cors(self, app: ASGIApp) -> ASGIApp:
        origins = [origin.strip() for origin in self.settings.cors_origins.split(",")]
        if not any(origins):
            return app
        return CORSMiddleware(
            app,
            allow_origins=origins,
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["*"],
        )

    # -- drawing ----------------------------------------------------------------------------

    def _drawer(self, model: type[AnyParameters]) -> Any:
        async def draw(request: Request) -> Response:
            with self.drawing.admitted(request, model.task) as owner:
                form = await forms.read(request, model, self.settings)
                accept = request.headers.get("accept", "")
                chosen = responses.choose_format(form.parameters, accept)
                result = await self.drawing.draw(request, owner, form)
                return await responses.image_response(
                    result, chosen, self.settings, request_id.of(request)
                )

        return draw

    # -- what there is ----------------------------------------------------------------------

    def _lister(self, name: str) -> Any:
        async def listed(request: Request) -> Response:
            self.keys.check(request.headers)
            return JSONResponse(await asyncio.to_thread(getattr(self.runnable, name)))

        return listed

    async def _models(self, request: Request) -> Response:
        self.keys.check(request.headers)
        self.drawing.check_ready()
        return JSONResponse(self.runnable.models())

    async def _ready(self, request: Request) -> Response:
        self.drawing.measure()
        self.drawing.check_ready()
        return PlainTextResponse("ready\n")


async def _alive(request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _swagger(request: Request) -> Response:
    return HTMLResponse(openapi.PAGE)


async def _document(request: Request) -> Response:
    return JSONResponse(openapi.document())


async def _handle(request: Request, error: Exception) -> Response:
    assert isinstance(error, StableDiffusionError)
    return error_forms.response(request.url.path, error)


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = error_forms.plain(request.url.path, error.status_code, error.detail, ("path",))
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _handle_unknown(request: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    logger.error("internal error %s", number, exc_info=error)
    message = f"internal error {number}; the server's log has the details"
    return JSONResponse(error_forms.plain(request.url.path, 500, message), 500)
