"""The route table that every host (BentoML, Ray Serve) answers with, and its life."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import psutil
from starlette.applications import Starlette
from starlette.types import ASGIApp

from api import errors, openapi
from api.cors import Cors
from api.generation import Generation
from api.http import tracing
from api.http.keys import Keys
from api.http.links import Links
from api.jobs.jobs import Jobs
from api.jobs.routes import JobRoutes
from api.mcp.routes import McpRoutes
from api.native.routes import NativeRoutes
from api.openai.answers import Keep
from api.openai.routes import OpenAIRoutes
from api.progress.live import Hub
from api.progress.requests import Requests
from api.webui.routes import WebUIRoutes
from runnables.metrics import Metrics
from runnables.runnable import Runnable
from runnables.settings import Settings
from ui import static

logger = logging.getLogger(__name__)

GAUGE_S = 1.0  # how often the gauges are read


class Api:
    """All APIs around one runnable."""

    def __init__(self, runnable: Runnable, metrics: Metrics | None = None) -> None:
        self.runnable = runnable
        self.settings = runnable.settings
        hub = Hub()
        requests = Requests(hub)
        settings = self.settings
        keys = Keys(
            settings.api_keys, settings.jobs_folder, by_address=settings.anonymous == "address"
        )
        self.jobs = Jobs(runnable, hub, requests, keys, metrics)
        self.generation = Generation(runnable, keys, requests, metrics)
        self._hub = hub
        self._links = Links(self.settings.jobs_folder / "links", self.settings.url_expiry_s)
        self._elsewhere = _bucket(settings)
        self._metrics = metrics
        self._stopped = threading.Event()

    @property
    def failure(self) -> str | None:
        """The reason why the model could not be loaded, which every caller reads."""
        return self.generation.failure

    @failure.setter
    def failure(self, reason: str | None) -> None:
        self.generation.failure = reason

    @property
    def jobs_folder(self) -> Path:
        """The folder of jobs, also where no setting names one."""
        return self.settings.jobs_folder

    def app(self) -> ASGIApp:
        """Return the ASGI application.

        CORS lies around all of it, so that browsers may read every error.
        """
        generation, hub = self.generation, self._hub
        routed = Starlette(
            routes=[
                *openapi.routes(),
                *NativeRoutes(generation).routes(),
                *JobRoutes(self.jobs, generation, self._links.signatures).routes(),
                *McpRoutes(self.jobs, generation).routes(),
                *OpenAIRoutes(generation, hub, self._links, self._elsewhere).routes(),
                *WebUIRoutes(generation, hub).routes(),
                *(static.routes() if self.settings.ui else ()),
            ],
            exception_handlers=dict(errors.HANDLERS),
        )
        return Cors(routed, self.settings.cors_origins)

    def start(self) -> None:
        """Go on with stored jobs. It is to be called once the runnable has started."""
        if self._metrics:
            self._metrics.started(self.runnable.describe())
        self.jobs.start()
        self.generation.started = True
        threading.Thread(target=self._gauge, name="gauges", daemon=True).start()

    def stop(self) -> None:
        """Finish what was accepted, the runnable included, and release everything."""
        self._stopped.set()
        self.jobs.stop()
        self.runnable.drain()
        self.runnable.close()
        self.jobs.close()
        self.generation.keys.close()
        tracing.flush()

    def _gauge(self) -> None:
        """Measure what no event reports: the queues and the memory as they are now."""
        process = psutil.Process()
        while self._metrics:
            try:
                self.generation.measure()
                self._metrics.memory_used(process.memory_info().rss, self.runnable.free_bytes)
                self._metrics.waiting_jobs(self.jobs.counts())
            except Exception:
                logger.exception("the gauges could not be read; trying again")
            if self._stopped.wait(GAUGE_S):
                return


def _bucket(settings: Settings) -> Keep | None:
    """Return what keeps images in S3, where the operator wants that; boto3 is imported then."""
    if not settings.urls_s3:
        return None
    from api.http.bucket import Bucket

    return Bucket(settings.urls_s3, settings.url_expiry_s).keep
