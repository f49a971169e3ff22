"""The life that all hosts have in common: logging, tracing, loading, answering, stopping."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from starlette.types import ASGIApp

from api.app import Api
from api.http import log, tracing
from api.http.gateway import Gateway
from api.http.internal import internal
from hosts.banner import banner, listening
from runnables.errors import StableDiffusionError
from runnables.metrics import Metrics
from runnables.runnable import Observe, Runnable
from runnables.settings import Settings

logger = logging.getLogger("stable_diffusion")
#: the loggers of our own packages; "stable_diffusion" has the hosts' and the access log's lines
LOGGERS = ("stable_diffusion", "runnables", "api", "hosts", "models")


class Host:
    """A runnable behind the route table, which answers from the first moment on.

    While the model loads, and where it could not be loaded, the probes and every request say so.

    Args:
        make: called with the hook that its measurements go to; it makes the runnable.
        gateway: gets the application that answers our paths.
        handlers: where our lines go; default: stderr.
    """

    def __init__(
        self,
        settings: Settings,
        gateway: Gateway,
        make: Callable[[Observe], Runnable],
        handlers: Sequence[logging.Handler] | None = None,
    ) -> None:
        begin(settings, handlers)
        metrics = Metrics()
        self.runnable = make(metrics.observe)
        self.api = Api(self.runnable, metrics)
        self.app: ASGIApp = self.api.app()
        gateway.serve(self.app)
        self._stopping, self._stopped = threading.Lock(), False
        #: set once the model is loaded, or cannot be
        self.settled = threading.Event()

    def start(self) -> None:
        """Load the model on a thread of its own."""
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def stop(self) -> None:
        """Finish what was accepted, then let go of everything. Blocks, also if called again."""
        with self._stopping:
            if not self._stopped:
                self.api.stop()
            self._stopped = True

    def _load(self) -> None:
        try:
            self.runnable.start()
            self.api.start()
            self._announce()
        except StableDiffusionError as error:
            logger.error("the model could not be loaded: %s", error.message)
            self.api.failure = error.message
        except Exception as error:
            self.api.failure = internal(error).message
        finally:
            self.settled.set()

    def _announce(self) -> None:
        """Tell a person more than a program that reads the log."""
        settings, model = self.runnable.settings, self.runnable.describe()
        if settings.log_format == "json":
            logger.info("ready: %s", model["name"])
        else:
            lines = banner(settings, model, listening(), self.api.jobs_folder)
            logger.info(lines, extra={"several_lines": True})


def begin(
    settings: Settings,
    handlers: Sequence[logging.Handler] | None = None,
    service: str = tracing.NAME,
) -> None:
    """Set up logging and tracing, under the name of a service, in a process about to serve."""
    log.configure(LOGGERS, settings.log_format, handlers)
    tracing.configure(service=service)
