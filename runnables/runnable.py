"""Hosts and APIs see the engine by the protocol `Runnable`; the one in this process is here.

Importing this module imports no torch, so that a host's supervising processes stay small and quick
to start; `StableDiffusionRunnable.start` does.
"""

from __future__ import annotations

import logging
import math
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, get_args

from runnables import collector, imports
from runnables.checkpoints import catalog
from runnables.errors import DeadlineExceeded, InvalidInput, NotReady
from runnables.parameters import AnyParameters, ImageToImage, Inpaint, TextToImage, Upscale
from runnables.samplers import names
from runnables.settings import Settings
from runnables.ticket import ANYBODY, NOTHING, Caller, Inputs, Load, OnStep, Plan, Result, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.engine.engine import Engine
    from runnables.engine.loaded_model import LoadedModel
    from runnables.engine.model_pool import ModelPool
    from runnables.repeats import Repeats

logger = logging.getLogger(__name__)

Observe = Callable[[str, float, int], None]
Descriptions = list[dict[str, Any]]
#: the kinds of what requests may name, beside models
Listed = Literal["samplers", "loras", "embeddings", "controlnets", "upscalers"]
LISTED: tuple[Listed, ...] = get_args(Listed)


class Runnable(Protocol):
    """A runnable generates images: in this process, or elsewhere as Ray's replicas do.

    Methods without a comment do what those of `StableDiffusionRunnable` do.
    """

    settings: Settings

    def start(self) -> None: ...

    @property
    def ready(self) -> bool: ...

    @property
    def alive(self) -> bool: ...

    def drain(self, timeout_s: float | None = None) -> bool: ...

    def close(self) -> None: ...

    def submit(
        self,
        parameters: AnyParameters,
        inputs: Inputs = NOTHING,
        *,
        id: str | None = None,
        on_step: OnStep | None = None,
        preview_every: int = 0,
        caller: Caller = ANYBODY,
    ) -> Ticket: ...

    def plan(self, parameters: AnyParameters, inputs: Inputs = NOTHING) -> Plan: ...

    def models(self) -> Descriptions: ...

    def change_model(self, name: str, *, load: bool) -> None: ...

    def describe(self) -> dict[str, Any]: ...

    def listed(self, kind: Listed) -> Descriptions: ...

    @property
    def capacity(self) -> int: ...

    def load(self) -> Load: ...

    @property
    def free_bytes(self) -> float:
        """Return the bytes that the device of this process has left; infinite if unknown."""
        return math.inf


class StableDiffusionRunnable:
    """This runnable loads each model once, and generates all requests in shared steps.

    Args:
        settings: default: the environment's `SD_*` variables.
        observe: called as observe(stage, seconds, rows) for every piece of work, for metrics.
    """

    def __init__(self, settings: Settings | None = None, *, observe: Observe | None = None) -> None:
        self.settings = settings or Settings.from_environment()
        self._observe: Observe = observe or (lambda stage, seconds, rows: None)
        self._engine: Engine | None = None
        self._pool: ModelPool | None = None
        self._repeats: Repeats | None = None
        self._starting = threading.Lock()

    # -- life -------------------------------------------------------------------------------

    def start(self) -> None:
        """Load the model, warm up, and begin to serve; this blocks, and further calls do nothing.

        Raises:
            ConfigurationError: the settings or the model folder are wrong.
        """
        with self._starting, collector.lasting():
            if self._engine is None:
                self._start()

    def _start(self) -> None:
        from runnables.images import provenance

        provenance.check(self.settings)
        compiles, quantizes = self.settings.compile != "off", bool(self.settings.quantize)
        with imports.trimmed(compiles=compiles, quantizes=quantizes):
            from runnables.assembly import assemble

            engine, self._pool = assemble(self.settings, self._observe)
        from runnables.repeats import Repeats

        engine.start()
        if self.settings.repeats_mb:
            self._repeats = Repeats(engine, self.settings)
        self._engine = engine

    @property
    def ready(self) -> bool:
        """Return whether it is loaded, warmed up, and accepting requests."""
        return self._engine is not None and self._engine.accepting

    @property
    def alive(self) -> bool:
        """Return False where only a restart of the process helps: the engine has failed."""
        return self._engine is None or self._engine.alive

    def drain(self, timeout_s: float | None = None) -> bool:
        """Accept no new requests and finish the accepted ones.

        Return whether none was left over.
        """
        if self._engine is None:
            return True
        return self._engine.drain(self.settings.drain_s if timeout_s is None else timeout_s)

    def close(self) -> None:
        """Stop generating; what is not finished ends with NotReady."""
        if self._engine is not None:
            self._engine.close()

    # -- generating -------------------------------------------------------------------------

    def submit(
        self,
        parameters: AnyParameters,
        inputs: Inputs = NOTHING,
        *,
        id: str | None = None,
        on_step: OnStep | None = None,
        preview_every: int = 0,
        caller: Caller = ANYBODY,
    ) -> Ticket:
        """Submit a request and return at once; `ticket.future` ends with a Result or an error.

        Args:
            inputs: the pictures that the task needs.
            id: the ticket's; default: a new one.
            on_step: called with the Progress after every step, on the engine's thread: be quick.
            preview_every: every so many steps the Progress carries a preview; 0: never.
            caller: on whose behalf, for its share of the machine.

        Raises:
            NotReady, InvalidInput, OverCapacity: refused.
        """
        if self._engine is None:
            raise NotReady("the model is still loading")
        _check_inputs(parameters, inputs)
        ticket = (self._repeats.ticket if self._repeats else Ticket)(
            parameters,
            id or uuid.uuid4().hex,
            on_step=on_step,
            preview_every=preview_every,
            caller=caller,
        )
        (self._repeats or self._engine).submit(ticket, inputs)
        return ticket

    def plan(self, parameters: AnyParameters, inputs: Inputs = NOTHING) -> Plan:
        """Return what generating this would take, without generating it.

        Raises:
            NotReady, InvalidInput: as `submit`.
        """
        if self._engine is None:
            raise NotReady("the model is still loading")
        _check_inputs(parameters, inputs)
        return self._engine.plan(Ticket(parameters), inputs)

    def txt2img(self, parameters: TextToImage) -> Result:
        """Generate what the prompt says, and block until it is done."""
        return self.submit(parameters).future.result()

    def img2img(self, parameters: ImageToImage, image: Image) -> Result:
        """Redraw an RGB image; blocks."""
        return self.submit(parameters, Inputs(image)).future.result()

    def inpaint(self, parameters: Inpaint, image: Image, mask: Image) -> Result:
        """Redraw the white area of the mask; blocks."""
        return self.submit(parameters, Inputs(image, mask)).future.result()

    def upscale(self, parameters: Upscale, image: Image) -> Result:
        """Enlarge an RGB image; blocks."""
        return self.submit(parameters, Inputs(image)).future.result()

    # -- what there is ----------------------------------------------------------------------

    def listed(self, kind: Listed) -> Descriptions:
        """Return what requests may name of a kind; some files may be for other models.

        Samplers have the kinds of models that they fit, and upscalers how many times they enlarge.
        """
        settings = self.settings
        if kind == "samplers":
            return names.describe()
        if kind == "upscalers":
            from runnables.upscalers.library import describe

            return describe(settings.upscaler_dir)
        if kind == "controlnets":
            return [
                {"name": path.parent.name}
                for path in _inside(settings.controlnet_dir, "*/config.json")
            ]
        folder = settings.lora_dir if kind == "loras" else settings.embeddings_dir
        return [{"name": path.stem} for path in _inside(folder, "*.safetensors")]

    def describe(self) -> dict[str, Any]:
        """Return the default model: its name, family, native size and defaults."""
        if self._pool is None:
            raise NotReady("the model is still loading")
        return _described(self._pool.first)

    def models(self) -> list[dict[str, Any]]:
        """Return every model a request may name, the default first; others may have only a name."""
        if self._pool is None:
            raise NotReady("the model is still loading")
        first, loaded = self._pool.first, self._pool.loaded
        known = {first.name: {**_described(first), "loaded": False}}
        known |= {name: _described(model) for name, model in loaded.items()}
        return [known.get(name, {"name": name, "loaded": False}) for name in self._pool.names]

    def change_model(self, name: str, *, load: bool) -> None:
        """Load a model, or unload it once its accepted requests are finished; this blocks.

        Requests for a model that is unloaded load it again.

        Raises:
            UnknownName: there is no such model.
            DeadlineExceeded: it takes longer than SD_REQUEST_TIMEOUT_S, and goes on.
            ConfigurationError: the model cannot be loaded.
        """
        if self._pool is None:
            raise NotReady("the model is still loading")
        allowed = self.settings.request_timeout_s
        try:
            self._pool.order(name, load=load).result(timeout=allowed)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not done within {allowed:.0f} s; it goes on") from error

    @property
    def capacity(self) -> int:
        """Return how many images of native size in flight keep the engine's steps full."""
        if self._engine is None:
            raise NotReady("the model is still loading")
        return self._engine.capacity

    def load(self) -> Load:
        """Return how busy the engine is."""
        engine = self._engine
        if engine is None:
            return Load()
        return Load(engine.waiting, engine.active, engine.headroom.share, engine.pending_s)

    @property
    def free_bytes(self) -> float:
        """Return the bytes that the device has left."""
        return self._engine.free_bytes if self._engine else math.inf


def check_models(settings: Settings) -> None:
    """Check that the models can be there, without looking into them or asking the Hub.

    Raises:
        ConfigurationError: it names the setting.
    """
    catalog.check_source("SD_MODEL", settings.model)
    if settings.refiner:
        catalog.check_source("SD_REFINER", settings.refiner)
    for source in settings.further_models.values():
        catalog.check_source("SD_MODELS", source)


def _inside(folder: str | None, pattern: str) -> list[Path]:
    found = sorted(Path(folder).expanduser().glob(pattern)) if folder else []
    return [path for path in found if path.is_file()]


def _described(model: LoadedModel) -> dict[str, Any]:
    base, checkpoint = model.base, model.base.checkpoint
    height, width = base.traits.native_size
    compiled = checkpoint.compiled
    return {
        "name": model.name,
        "loaded": True,
        "family": checkpoint.family,
        "prediction": base.traits.prediction,
        "height": height,
        "width": width,
        "defaults": checkpoint.profile.model_dump(exclude={"height", "width"}),
        "device": str(base.device),
        "sizes": [list(size) for size in compiled.sizes] if compiled else None,
        "precision": str(base.dtype).removeprefix("torch."),
    }


def _check_inputs(parameters: AnyParameters, inputs: Inputs) -> None:
    task, image, mask = parameters.task, inputs.image, inputs.mask
    if isinstance(parameters, ImageToImage | Upscale) != (image is not None):
        wrong = "an image is needed" if image is None else f"{task} takes no image"
        raise InvalidInput(wrong, loc=("img",))
    if isinstance(parameters, Inpaint) != (mask is not None):
        wrong = "a mask is needed: white is repainted" if mask is None else f"{task} takes no mask"
        raise InvalidInput(wrong, loc=("mask",))
    if len(inputs.controls) != len(parameters.controlnets):
        raise InvalidInput(
            f"controlnets names {len(parameters.controlnets)}, so as many control images are "
            f"needed, not {len(inputs.controls)}",
            loc=("control",),
        )
