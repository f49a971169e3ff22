"""The engine is put together here from accelerator, checkpoints and models, and warmed up."""

from __future__ import annotations

import logging
import math
import pkgutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch

from runnables import accelerators
from runnables.accelerators.base import Accelerator
from runnables.checkpoints import quantization
from runnables.checkpoints.checkpoint import Checkpoint
from runnables.checkpoints.families import FAMILIES
from runnables.checkpoints.sources import Sources
from runnables.engine import denoise
from runnables.engine.batch import Batch
from runnables.engine.decode import decode
from runnables.engine.engine import Engine
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.model_pool import ModelPool
from runnables.engine.prepare import Preparer
from runnables.engine.row import Row
from runnables.errors import ConfigurationError
from runnables.extensions import extensions_of
from runnables.extensions.base import Context
from runnables.families.base import Family
from runnables.measured import Kept
from runnables.parameters import Inpaint, Parameters, TextToImage
from runnables.ticket import Inputs, Ticket
from runnables.upscalers.library import Upscalers

if TYPE_CHECKING:
    from runnables.settings import Settings

logger = logging.getLogger(__name__)

SPARE = 0.9  # share of the free memory that steps may use; the rest is for what is not measured
CALLS, CALLS_S = 3, 0.2  # most calls of each size that are timed, and most seconds of them
WARM_UP_S = 2.0  # calibrate with larger batches only while calls are shorter than this in all


def assemble(
    settings: Settings, observe: Callable[[str, float, int], None]
) -> tuple[Engine, ModelPool]:
    """Return a warmed-up engine, not started yet, and the models that it serves."""
    accelerator = accelerators.choose(settings)
    models = Models(settings, accelerator)
    first = models.read_first()
    with accelerator.session():
        models.install(first)
    pool = models.pool(first)
    return Engine(pool, accelerator, observe=observe), pool


class Models:
    """This class makes loaded models for one accelerator.

    Args:
        primary: the family of the model that SD_MODEL names; default: known once that is read.
    """

    def __init__(self, settings: Settings, accelerator: Accelerator, primary: str = "") -> None:
        self._settings = settings
        self._accelerator = accelerator
        self._primary = primary
        self._upscalers = Upscalers(settings, accelerator.device)
        self._measured = Kept(settings.measured_dir, accelerator)
        self._measured.keep_compiled()

    def read_first(self) -> LoadedModel:
        """Return the model that SD_MODEL names, with its refiner, in main memory.

        Raises:
            ConfigurationError: saying which setting is wrong.
        """
        base = self._family(self._settings.model)
        quantization.check(self._settings.quantized, base.checkpoint.components)
        self._primary = base.traits.family
        named = self._settings.refiner
        refiner = self._family(named) if named else None
        if refiner and not refiner.checkpoint.config.get("requires_aesthetics_score"):
            raise ConfigurationError(f"SD_REFINER={named} is not an SDXL refiner")
        return self.make(base, refiner=refiner)

    def install(self, model: LoadedModel) -> None:
        """Bring a model to the accelerator, and warm it up."""
        with torch.inference_mode(False):
            for family in filter(None, (model.base, model.refiner)):
                self._accelerator.prepare(family)
        known = self._measured.read(model) if self._settings.compile == "off" else None
        with self._accelerator.warming_up():
            if known is None:  # or compiled code would be made at the first requests
                warm_up(model, self._accelerator)
                self._measured.write(model)
            else:
                known.tell(model)
                touch(model, self._accelerator)

    def make(
        self, base: Family, *, refiner: Family | None = None, name: str | None = None
    ) -> LoadedModel:
        """Return a model with its extensions.

        Raises:
            ConfigurationError: a folder that a setting names is not there.
        """
        adopt = partial(self._accelerator.adopt, size=base.traits.latent_size)
        context = Context(self._settings, adopt, self._primary)
        extensions = extensions_of(base, context)
        name = name or base.checkpoint.name
        return LoadedModel(name, base, self._settings, self._upscalers, refiner, extensions)

    def pool(self, first: LoadedModel) -> ModelPool:
        """Return the pool with the first model and those that requests may name."""
        settings, accelerator = self._settings, self._accelerator
        sources = Sources(settings.further_models, settings.models_dir, first.name)
        if first.name in settings.further_models:
            raise ConfigurationError(
                f"SD_MODELS names {first.name}, which SD_MODEL serves already", loc=("SD_MODELS",)
            )
        if (settings.models or settings.models_dir) and accelerator.static:
            raise ConfigurationError(
                "several models need steps of any size: no compiled models, no SD_COMPILE=full",
                loc=("SD_MODELS",),
            )
        budget = settings.models_memory_gb * 1e9 or math.inf
        return ModelPool(
            first,
            sources,
            read=self._read,
            install=self.install,
            free=self._free,
            keep=self._measured.write,
            budget=budget,
            idle_s=settings.idle_unload_s,
        )

    def _read(self, name: str, source: str | None) -> LoadedModel:
        return self.make(self._family(source), name=name) if source else self.read_first()

    def _family(self, source: str) -> Family:
        started = time.monotonic()
        checkpoint = self._accelerator.load(source, self._settings.checkpoint_config)
        logger.info("read %s in %.1f s", checkpoint.name, time.monotonic() - started)
        return family_of(checkpoint, self._accelerator)

    def _free(self) -> float:
        self._accelerator.free_memory()
        return SPARE * self._accelerator.free_bytes()


def family_of(checkpoint: Checkpoint, accelerator: Accelerator) -> Family:
    """Return a checkpoint with its family's code around it."""
    code = pkgutil.resolve_name(FAMILIES[checkpoint.family].code)
    dtype = accelerator.dtype_of(checkpoint.family)
    return cast(Family, code(checkpoint, accelerator.device, dtype))


def touch(model: LoadedModel, accelerator: Accelerator) -> None:
    """Run every part once, where cost and memory are known already."""
    rows = _rows(model, 1)
    Batch(rows, accelerator).step()
    _decoded(rows, accelerator)
    accelerator.synchronize()
    model.memory.budget = SPARE * accelerator.free_bytes()


def warm_up(model: LoadedModel, accelerator: Accelerator) -> None:
    """Generate a little with every part, and calibrate the cost model with what it took."""
    cost, memory = model.cost, model.memory
    samples: dict[int, tuple[int, int, float]] = {}
    held: dict[int, float] = {}
    started = time.perf_counter()
    most = min(4, max(accelerator.buckets, default=8) // 2)  # guided images take two rows
    if model.settings.compile == "regional":  # code for one row is not that for several
        _timed_step(_rows(model, 1, guidance_scale=1.0), accelerator)
    # the first call of a size pays for initialisation, or is captured; the second is timed, but
    # where it replays a graph it takes no memory
    for images in (1, 1, most, most) if accelerator.buckets else (1, 1, most):
        step = partial(_timed_step, _rows(model, images), accelerator)
        samples[images], peak = accelerator.measure(step)
        held[images] = max(peak, held.get(images, 0.0))
        if time.perf_counter() - started > WARM_UP_S:
            break
    cost.calibrate(list(samples.values()))
    most = max(samples)
    calls, area, _ = samples[most]
    rows, decoding = _rows(model, 1), time.perf_counter()
    _, decode_held = accelerator.measure(lambda: _decoded(rows, accelerator))
    cost.decode_rate = (time.perf_counter() - decoding) / area
    memory.row_rate, memory.decode_rate = held[most] / (calls * area), decode_held / area
    memory.budget = SPARE * accelerator.free_bytes()
    logger.info(
        "warm: a step takes %.1f ms, %.2f ms more a row",
        1000 * cost.step(2, area),
        1000 * cost.rate * area,
    )


def _decoded(rows: list[Row], accelerator: Accelerator) -> None:
    """Decode rows. Raise what went wrong."""
    for _, pixels in decode(rows, accelerator):
        if isinstance(pixels, Exception):
            raise pixels


def _rows(model: LoadedModel, images: int, **options: float) -> list[Row]:
    work = denoise.plan(model, Ticket(_parameters(model, images, options)), _inputs(model))
    return Preparer(0).at_once(work)


def _parameters(model: LoadedModel, images: int, options: Mapping[str, Any]) -> Parameters:
    task: type[Parameters] = Inpaint if model.base.traits.inpaints_only else TextToImage
    return task(prompt="warm up", num_images_per_prompt=images, seed=0, **options)


def _timed_step(rows: list[Row], accelerator: Accelerator) -> tuple[int, int, float]:
    """Return (denoiser rows, area, seconds) of one call: the fastest of a few, unless they last.

    Other work on the machine makes a call slower, and never faster.
    """
    calls, area = sum(row.denoiser_rows for row in rows), rows[0].key.area
    batch, seconds = Batch(rows, accelerator), list[float]()
    while len(seconds) < min(CALLS, rows[0].steps) and sum(seconds) < CALLS_S:
        accelerator.before_step()
        started = time.perf_counter()
        batch.step()
        accelerator.synchronize()
        seconds.append(time.perf_counter() - started)
    return calls, area, min(seconds)


def _inputs(model: LoadedModel) -> Inputs:
    from PIL.Image import new

    traits = model.base.traits
    if not traits.inpaints_only:
        return Inputs()
    height, width = traits.native_size
    return Inputs(new("RGB", (width, height)), new("L", (width, height), 255))
