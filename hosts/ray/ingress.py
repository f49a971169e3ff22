"""The deployment that speaks HTTP: the route table of `api.app`, and no model."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from api.app import Api
from api.http.gateway import Asgi, Gateway
from hosts.ray.remote import RemoteRunnable
from runnables.metrics import Metrics
from runnables.settings import Settings

logger = logging.getLogger("ray.serve")


@serve.ingress()
class Front:
    """Parses, asks a drawer, encodes. Probes and refusals need no drawer.

    Args:
        models: names of further models.
    """

    def __init__(self, drawers: DeploymentHandle, models: Sequence[str] = ()) -> None:
        _log()
        settings = Settings.from_environment()
        metrics = Metrics()
        loop = asyncio.get_running_loop()
        self.runnable = RemoteRunnable(settings, drawers, loop, models, observe=metrics.observe)
        self.api = Api(self.runnable, metrics)
        self.gateway = Gateway(settings)
        self.gateway.serve(self.api.app())
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def __serve_build_asgi_app__(self) -> Asgi:
        """Ray calls it after the constructor."""
        return self.gateway.around(_host())

    async def stop(self) -> None:
        """Take nothing more, and wait until what was accepted is drawn."""
        await asyncio.to_thread(self.api.stop)

    async def __del__(self) -> None:
        """Ray calls it once the requests in flight are answered, or their grace is over."""
        if hasattr(self, "api"):
            await self.stop()

    def _load(self) -> None:
        try:
            self.runnable.start()
            self.api.start()
        except Exception as error:
            logger.exception("no drawer could be asked what it draws")
            self.api.failure = str(error)


def _host() -> Starlette:
    """What BentoML answers itself there: metrics, and Swagger's files (BentoML's copy of them)."""
    found = importlib.util.find_spec("bentoml")
    assert found is not None and found.origin is not None
    static = Path(found.origin).parent / "_internal" / "server" / "static_content"
    return Starlette(
        routes=[
            Route("/metrics", _metrics),
            Mount("/static_content", StaticFiles(directory=static)),
        ]
    )


async def _metrics(request: Request) -> Response:
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


def _log() -> None:
    """Our own lines go where Ray's go."""
    for name in ("stable_diffusion", "runnables", "api"):
        log: Any = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.handlers, log.propagate = logger.handlers, False
