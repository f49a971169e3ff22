"""The BentoML host: `bentoml serve service:svc`.

The way of a request is in `api.app`: parse, submit to the runnable's engine, encode. This file is
where BentoML meets it: life, schema and middleware. The model loads in the background, so that the
probes answer from the first moment on.

BentoML's supervisor imports this file, too, before it starts the process that serves. What only
that process needs is imported late.
"""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import bentoml
from bentoml.validators import ContentType

from api.configuration import settings_or_exit
from api.http import heads, log
from api.http.gateway import Gateway
from api.http.stopping import finish_first
from runnables.parameters import AnyParameters, ImageToImage, Inpaint, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Inputs

if t.TYPE_CHECKING:
    from PIL.Image import Image

os.environ["FORWARDED_ALLOW_IPS"] = ""  # uvicorn's own; SD_TRUSTED_PROXIES alone decides
settings = settings_or_exit()
log.configure((), settings.log_format)  # BentoML's own lines, in both processes
heads.limit()
gateway = Gateway(settings)
ImageFile = t.Annotated[bytes, ContentType("image/*")]


@bentoml.service(name="stable_diffusion", traffic={"timeout": 3600})
class StableDiffusion:
    """Generates images from text, changes images, and repaints parts of them."""

    def __init__(self) -> None:
        from hosts.host import Host

        self.host = Host(
            settings, gateway, lambda watch: StableDiffusionRunnable(settings, observe=watch)
        )
        finish_first(self.host.stop)
        self.host.start()

    @bentoml.on_shutdown
    def stop(self) -> None:
        """Finish what was accepted, then let go."""
        self.host.stop()

    # HTTP requests are answered by `api.app`, from the same parameters. These methods give
    # BentoML's clients their schema, and other BentoML services a way to call in-process.

    @bentoml.api
    def txt2img(self, data: TextToImage, /) -> ImageFile:
        """Generate what the prompt says."""
        return self._generate(data)

    @bentoml.api
    def img2img(self, img: Path, data: ImageToImage) -> ImageFile:
        """Change an image as the prompt says."""
        return self._generate(data, self._open(img))

    @bentoml.api
    def inpaint(self, img: Path, mask: Path, data: Inpaint) -> ImageFile:
        """Repaint the white area of the mask, and keep the rest."""
        from runnables.images import codec

        grey = codec.decode_mask(mask.read_bytes(), max_pixels=settings.max_pixels)
        return self._generate(data, self._open(img), grey)

    @bentoml.api
    def upscale(self, img: Path, data: Upscale) -> ImageFile:
        """Enlarge an image as it is."""
        return self._generate(data, self._open(img))

    def _open(self, path: Path) -> Image:
        from runnables.images import codec

        return codec.decode(path.read_bytes(), max_pixels=settings.max_pixels, field="img")

    def _generate(
        self, parameters: AnyParameters, image: Image | None = None, mask: Image | None = None
    ) -> bytes:
        """Return a file, or JSON for several images, as HTTP does without `Accept`."""
        from api.http.responses import choose_format
        from runnables.images import files

        chosen = choose_format(parameters, accept="")
        result = self.host.runnable.submit(parameters, Inputs(image, mask)).future.result()
        return files.encode(result, chosen, settings)


svc = StableDiffusion
t.cast(t.Any, svc).add_asgi_middleware(gateway.around)
