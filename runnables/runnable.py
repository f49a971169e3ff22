"""StableDiffusionRunnable: what every host (BentoML, Ray Serve, the queue worker) holds.

Importing this module imports no torch, so that a host's supervising processes stay small and quick
to start; `start` does.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runnables import collector
from runnables.engine.request import OnStep, Plan, Result, Ticket
from runnables.errors import InvalidInput, NotReady, UnknownName
from runnables.parameters import ImageToImage, Inpaint, Parameters, TextToImage
from runnables.settings import Settings

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.engine.engine import Engine
    from runnables.pipelines.base import Pipeline

logger = logging.getLogger(__name__)

Observe = Callable[[str, float, int], None]


class StableDiffusionRunnable:
    """One model, loaded once, drawing all requests in shared steps.

    Args:
        settings: default: the environment's `SD_*` variables.
        observe: called as observe(stage, seconds, rows) for every piece of work, for metrics.
    """

    def __init__(self, settings: Settings | None = None, *, observe: Observe | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self._observe: Observe = observe or (lambda stage, seconds, rows: None)
        self._engine: Engine | None = None
        self._base: Pipeline | None = None
        self._starting = threading.Lock()

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the model, warm up, and begin to draw. Blocks; further calls do nothing.

        Raises:
            ConfigurationError: the settings or the model folder are wrong.
        """
        with self._starting, collector.lasting():
            if self._engine is None:
                self._start()

    def _start(self) -> None:
        from runnables import provenance
        from runnables.assembly import assemble

        provenance.check(self.settings)
        engine, self._base = assemble(self.settings, self._observe)
        engine.start()
        self._engine = engine

    @property
    def ready(self) -> bool:
        """Loaded, warmed up, and taking requests."""
        return self._engine is not None and self._engine.accepting

    def drain(self, timeout_s: float | None = None) -> bool:
        """Take no new requests and finish the accepted ones. True when none was left over."""
        if self._engine is None:
            return True
        return self._engine.drain(self.settings.drain_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Stop drawing. What is not finished ends with NotReady."""
        if self._engine is not None:
            self._engine.close()

    # -- drawing ----------------------------------------------------------------------------

    def submit(
        self,
        parameters: Parameters,
        image: Image | None = None,
        mask: Image | None = None,
        *,
        id: str | None = None,
        on_step: OnStep | None = None,
        preview_every: int = 0,
    ) -> Ticket:
        """Hand in a request and return at once; `ticket.future` ends with a Result or an error.

        Args:
            image: RGB, for img2img and inpaint.
            mask: for inpaint; white is redrawn.
            id: the ticket's; default: a new one.
            on_step: called with the Progress after every step, on the engine's thread: be quick.
            preview_every: every so many steps the Progress carries a preview; 0: never.

        Raises:
            NotReady, InvalidInput, OverCapacity: refused.
        """
        if self._engine is None:
            raise NotReady("the model is still loading")
        _check_inputs(parameters, image, mask)
        ticket = Ticket(
            parameters, id or uuid.uuid4().hex, on_step=on_step, preview_every=preview_every
        )
        self._engine.submit(ticket, image, mask)
        return ticket

    def plan(
        self, parameters: Parameters, image: Image | None = None, mask: Image | None = None
    ) -> Plan:
        """What drawing this would be, without drawing it.

        Raises:
            NotReady, InvalidInput: as `submit`.
        """
        if self._engine is None:
            raise NotReady("the model is still loading")
        _check_inputs(parameters, image, mask)
        return self._engine.plan(Ticket(parameters), image, mask)

    def txt2img(self, parameters: TextToImage) -> Result:
        """Draw what the prompt says; blocks."""
        return self.submit(parameters).future.result()

    def img2img(self, parameters: ImageToImage, image: Image) -> Result:
        """Redraw an RGB image; blocks."""
        return self.submit(parameters, image).future.result()

    def inpaint(self, parameters: Inpaint, image: Image, mask: Image) -> Result:
        """Redraw the white area of the mask; blocks."""
        return self.submit(parameters, image, mask).future.result()

    # -- what there is ----------------------------------------------------------------------

    def loras(self) -> list[dict[str, Any]]:
        """Every LoRA a request may name; some may be for other models."""
        folder = self.settings.lora_dir
        found = sorted(Path(folder).expanduser().glob("*.safetensors")) if folder else []
        return [{"name": path.stem} for path in found]

    def samplers(self) -> list[dict[str, Any]]:
        """Every sampler a request may name."""
        from runnables.samplers import describe

        return describe()

    def spacings(self) -> list[dict[str, str]]:
        """Every spacing of noise levels that `webui_sampler` knows."""
        from runnables.samplers import describe_spacings

        return describe_spacings()

    def webui_sampler(self, name: str, spacing: str) -> str:
        """Our name for what clients of the Stable Diffusion WebUI name by two.

        Raises:
            UnknownName: no such sampler, or it has no such spacing.
        """
        from runnables.samplers import UnknownSampler, resolve_webui

        try:
            return resolve_webui(name, spacing)
        except UnknownSampler as error:
            raise UnknownName(str(error), loc=("sampler_name",)) from error

    def describe(self) -> dict[str, Any]:
        """The model, its family, native size and defaults."""
        if self._base is None:
            raise NotReady("the model is still loading")
        checkpoint = self._base.checkpoint
        height, width = self._base.native_size
        return {
            "name": checkpoint.name,
            "family": checkpoint.family,
            "height": height,
            "width": width,
            "defaults": checkpoint.profile.model_dump(exclude={"height", "width"}),
            "device": str(self._base.device),
            "sizes": [list(size) for size in checkpoint.compiled.sizes]
            if checkpoint.compiled
            else None,
            "precision": str(self._base.dtype).removeprefix("torch."),
        }

    @property
    def capacity(self) -> int:
        """Images of native size in flight that keep the engine's steps full."""
        if self._engine is None:
            raise NotReady("the model is still loading")
        return self._engine.capacity

    def load(self) -> dict[str, int]:
        """How busy it is: requests waiting, images being drawn."""
        if self._engine is None:
            return {"waiting": 0, "active": 0}
        return {"waiting": self._engine.waiting, "active": self._engine.active}


def _check_inputs(parameters: Parameters, image: Image | None, mask: Image | None) -> None:
    if isinstance(parameters, ImageToImage) and image is None:
        raise InvalidInput("an image is needed", loc=("img",))
    if isinstance(parameters, Inpaint) and mask is None:
        raise InvalidInput("a mask is needed: white is redrawn", loc=("mask",))
