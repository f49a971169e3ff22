"""The BentoML service: `bentoml serve service:svc`.

The flow of a request is in `api.app`: parse, submit to the runnable's engine, encode. This file is
where BentoML meets it: life, schema and middleware. The model loads in the background, so that the
probes answer from the first moment on.
"""

from __future__ import annotations

import logging
import threading
import typing as t
from pathlib import Path

import bentoml
from bentoml.validators import ContentType
from PIL.Image import Image

from api.http.gateway import Gateway
from api.http.responses import choose_format
from api.http.stopping import stopping
from runnables.images import codec, files
from runnables.metrics import Metrics
from runnables.parameters import AnyParameters, ImageToImage, Inpaint, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from ui.mount import Mounted

logger = logging.getLogger("stable_diffusion")
settings = Settings.from_environment()
gateway = Gateway(settings)
ImageFile = t.Annotated[bytes, ContentType("image/*")]


@bentoml.service(name="stable_diffusion", traffic={"timeout": 3600})
class StableDiffusion:
    """Draws images from text, redraws images, and redraws parts of images."""

    def __init__(self) -> None:
        # BentoML's supervisor imports this file, too, but never makes a service
        from api.app import Api
        from api.http import tracing

        _log_to_stderr()
        tracing.configure()
        metrics = Metrics()
        self.runnable = StableDiffusionRunnable(settings, observe=metrics.observe)
        self.api = Api(self.runnable, metrics)
        app = self.api.app()
        gateway.serve(app)
        if settings.ui:
            gateway.page = Mounted(app, max_upload_mb=settings.max_body_mb, stopping=stopping)
        threading.Thread(target=self._load, name="load", daemon=True).start()

    def _load(self) -> None:
        try:
            self.runnable.start()
            self.api.start()
            logger.info("ready: %s", self.runnable.describe()["name"])
        except Exception as error:
            logger.exception("the model could not be loaded")
            self.api.failure = str(error)

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish what was accepted, then let go."""
        self.api.stop()

    # HTTP requests are answered by `api.app`, from the same parameters. These methods give
    # BentoML's clients their schema, and other BentoML services a way to call in-process.

    @bentoml.api
    def txt2img(self, data: TextToImage, /) -> ImageFile:
        """Draw what the prompt says."""
        return self._draw(data)

    @bentoml.api
    def img2img(self, img: Path, data: ImageToImage) -> ImageFile:
        """Redraw an image as the prompt says."""
        return self._draw(data, self._open(img))

    @bentoml.api
    def inpaint(self, img: Path, mask: Path, data: Inpaint) -> ImageFile:
        """Redraw the white area of the mask, keep the rest."""
        grey = codec.decode_mask(mask.read_bytes(), max_pixels=settings.max_pixels)
        return self._draw(data, self._open(img), grey)

    @bentoml.api
    def upscale(self, img: Path, data: Upscale) -> ImageFile:
        """Enlarge an image as it is."""
        return self._draw(data, self._open(img))

    def _open(self, path: Path) -> Image:
        return codec.decode(path.read_bytes(), max_pixels=settings.max_pixels, field="img")

    def _draw(self, parameters: AnyParameters, *inputs: Image) -> bytes:
        """A file, or JSON where there are several images: chosen as over HTTP without `Accept`."""
        chosen = choose_format(parameters, accept="")
        result = self.runnable.submit(parameters, *inputs).future.result()
        return files.encode(result, chosen, settings)


def _log_to_stderr() -> None:
    """Our own loggers at INFO; BentoML has set up the handler's format."""
    handler = logging.StreamHandler()
    plain = "%(message)s" if settings.log_format == "json" else "%(asctime)s %(name)s: %(message)s"
    handler.setFormatter(logging.Formatter(plain))
    for name in ("stable_diffusion", "runnables", "api", "models"):
        log = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.handlers, log.propagate = [handler], False


svc = StableDiffusion
t.cast(t.Any, svc).add_asgi_middleware(gateway.around)
