"""The deployment that speaks HTTP: the route table of `api.app`, and no model."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from api.http.gateway import Asgi, Gateway
from hosts.host import Host
from hosts.ray.remote import RemoteRunnable
from runnables.settings import Settings


@serve.ingress()
class Ingress:
    """Parses requests, has a replica generate the images, and encodes them.

    Probes and refusals need no replica.
    """

    def __init__(self, replicas: DeploymentHandle) -> None:
        settings = Settings.from_environment()
        self.gateway = Gateway(settings)
        loop = asyncio.get_running_loop()
        self.host = Host(
            settings,
            self.gateway,
            lambda observe: RemoteRunnable(settings, replicas, loop, observe=observe),
            logging.getLogger("ray.serve").handlers,
        )
        self.host.start()

    async def reconfigure(self, _: object) -> None:
        """Ray awaits it, where `user_config` is set, before it sends requests here.

        An ingress that takes another's place, on a node that drains, is to know the models first.
        """
        await asyncio.to_thread(self.host.settled.wait)

    def __serve_build_asgi_app__(self) -> Asgi:
        """Ray calls it after the constructor."""
        return self.gateway.around(_ours())

    async def stop(self) -> None:
        """Take nothing more, and wait until what was accepted is finished."""
        await asyncio.to_thread(self.host.stop)

    async def __del__(self) -> None:
        """Ray calls it once the requests in flight are answered, or their grace is over."""
        if hasattr(self, "host"):
            await self.stop()


def _ours() -> Starlette:
    """Return the routes that BentoML answers itself: metrics, and Swagger's files."""
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
