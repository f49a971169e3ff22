"""The route table: what every host (BentoML, Ray Serve) answers with."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from api import forms, openapi, request_id, responses
from api.jobs.jobs import Jobs
from api.jobs.routes import JobRoutes
from api.keys import Keys
from runnables.engine.request import Result
from runnables.errors import Cancelled, NotReady, StableDiffusionError
from runnables.metrics import Metrics
from runnables.parameters import MODELS, Parameters
from runnables.runnable import StableDiffusionRunnable

logger = logging.getLogger(__name__)


class Api:
    """Handlers around one runnable."""

    def __init__(self, runnable: StableDiffusionRunnable, metrics: Metrics | None = None) -> None:
        self.runnable = runnable
        self.settings = runnable.settings
        self.metrics = metrics
        self.keys = Keys(self.settings.api_keys)
        self.jobs = Jobs(runnable)
        self.failure: str | None = None  # why the model could not be loaded

    def app(self) -> ASGIApp:
        """The ASGI application; CORS lies around all of it, so browsers may read every error."""
        return self._with_cors(self._routed())

    def start(self) -> None:
        """To be called once the runnable has started: go on with stored jobs."""
        self.jobs.start()

    def stop(self) -> None:
        """Finish what was accepted, the runnable included, and let go."""
        self.jobs.stop()
        self.runnable.drain()
        self.runnable.close()
        self.jobs.close()

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
                *JobRoutes(self.jobs, self.settings, self.keys, self._check_ready).routes(),
                Route("/samplers", self._samplers),
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

    def _drawer(self, model: type[Parameters]) -> Any:
        async def draw(request: Request) -> Response:
            try:
                result, response = await answer(request)
            except StableDiffusionError as error:
                self._count(model, error.status)
                raise
            self._count(model, 200, [drawn.finish_reason for drawn in result.images])
            return response

        async def answer(request: Request) -> tuple[Result, Response]:
            owner = self.keys.check(request.headers)
            self._check_ready()
            form = await forms.read(request, model, self.settings)
            chosen = responses.choose_format(form.parameters, request.headers.get("accept", ""))
            result = await self._draw(request, form, owner)
            name = str(self.runnable.describe()["name"])
            response = await responses.image_response(
                result, chosen, self.settings, name, request_id.of(request)
            )
            return result, response

        return draw

    async def _draw(self, request: Request, form: forms.Form, owner: str) -> Result:
        """Submit, and wait until it is drawn or the client has gone."""
        live = self.jobs.requests.begin(owner, request_id.of(request))
        ticket = await asyncio.to_thread(
            self.runnable.submit, form.parameters, form.image, form.mask, on_step=live.on_step
        )
        self.jobs.requests.follow(live, ticket)
        self._measure()
        drawn = asyncio.wrap_future(ticket.future)
        gone: asyncio.Future[Any] = asyncio.ensure_future(_disconnected(request))
        both: set[asyncio.Future[Any]] = {drawn, gone}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not drawn.done():
                raise Cancelled("the client went away")
            return drawn.result()
        finally:
            gone.cancel()
            ticket.cancel()  # without effect on what is finished
            self._measure()

    def _count(self, model: type[Parameters], status: int, reasons: Sequence[str] = ()) -> None:
        if self.metrics:
            self.metrics.ended(model.task, status, reasons)

    def _measure(self) -> None:
        if self.metrics:
            self.metrics.load(**self.runnable.load())

    def _check_ready(self) -> None:
        if self.failure:
            raise NotReady(f"the model could not be loaded: {self.failure}")
        if not self.runnable.ready:
            raise NotReady("the model is loading, or the service is stopping")

    # -- what there is ----------------------------------------------------------------------

    async def _samplers(self, request: Request) -> Response:
        self.keys.check(request.headers)
        return JSONResponse(await asyncio.to_thread(self.runnable.samplers))

    async def _models(self, request: Request) -> Response:
        self.keys.check(request.headers)
        self._check_ready()
        return JSONResponse([self.runnable.describe()])

    async def _ready(self, request: Request) -> Response:
        self._measure()
        self._check_ready()
        return PlainTextResponse("ready\n")


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _alive(request: Request) -> Response:
    return PlainTextResponse("alive\n")


async def _swagger(request: Request) -> Response:
    return HTMLResponse(openapi.PAGE)


async def _document(request: Request) -> Response:
    return JSONResponse(openapi.document())


async def _handle(request: Request, error: Exception) -> Response:
    assert isinstance(error, StableDiffusionError)
    return responses.error_response(error)


async def _handle_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    body = {"error": error.detail, "detail": [{"loc": ["path"], "msg": error.detail}]}
    return JSONResponse(body, error.status_code, headers=error.headers)


async def _handle_unknown(request: Request, error: Exception) -> Response:
    number = secrets.token_hex(4)
    logger.error("internal error %s", number, exc_info=error)
    message = f"internal error {number}; the server's log has the details"
    return JSONResponse({"error": message, "detail": [{"loc": [], "msg": message}]}, 500)
