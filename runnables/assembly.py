"""Puts the engine together: accelerator, checkpoint, pipeline, warm-up."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from runnables import accelerators
from runnables.accelerators.base import Accelerator
from runnables.checkpoints.checkpoint import Checkpoint
from runnables.checkpoints.sources import Sources
from runnables.engine.batch import Batch
from runnables.engine.cost import CostModel
from runnables.engine.decode import decode
from runnables.engine.engine import Engine
from runnables.engine.model_pool import Shelf
from runnables.engine.plan import Planner
from runnables.engine.prepare import Preparer
from runnables.engine.previews import Previewer
from runnables.engine.row import Row
from runnables.errors import ConfigurationError
from runnables.extensions.adapters import Adapters
from runnables.families.base import Pipeline
from runnables.families.registry import PIPELINES
from runnables.parameters import Inpaint, Parameters, TextToImage
from runnables.ticket import Inputs, Ticket
from runnables.upscalers.library import Upscalers

if TYPE_CHECKING:
    from runnables.settings import Settings

logger = logging.getLogger(__name__)

SPARE = 0.9  # share of the free memory that steps may use; the rest is for what is not measured
WARM_UP_S = 2.0  # calibrate with larger batches only while calls are shorter than this in all


def assemble(
    settings: Settings, observe: Callable[[str, float, int], None]
) -> tuple[Engine, Shelf]:
    """A warmed-up engine, not started yet, and the models it draws with."""
    accelerator = accelerators.choose(settings)
    base = load_pipeline(settings.model, accelerator, settings.checkpoint_config)
    refiner = load_pipeline(settings.refiner, accelerator) if settings.refiner else None
    if refiner and not refiner.checkpoint.config.get("requires_aesthetics_score"):
        raise ConfigurationError(f"SD_REFINER={settings.refiner} is not an SDXL refiner")
    upscalers = Upscalers(settings, accelerator.device)
    first = _planner(base, refiner, accelerator, settings, upscalers)
    with accelerator.session():
        warm_up(first, accelerator)
    previewer = Previewer(
        _tiny_vae(settings.preview_vae, base, accelerator), base.checkpoint.family
    )
    shelf = _shelf(first, accelerator, settings, upscalers)
    return Engine(shelf, accelerator, previewer=previewer, observe=observe), shelf


def _shelf(
    first: Planner, accelerator: Accelerator, settings: Settings, upscalers: Upscalers
) -> Shelf:
    """The first model, and those that are loaded when a request names them."""
    sources = Sources(settings.further_models, settings.models_dir, first.name)
    if first.name in settings.further_models:
        raise ConfigurationError(
            f"SD_MODELS names {first.name}, which SD_MODEL serves already", loc=("SD_MODELS",)
        )
    if (settings.models or settings.models_dir) and accelerator.buckets:
        raise ConfigurationError(
            "several models need steps of any number of rows: no compiled models, no SD_COMPILE",
            loc=("SD_MODELS",),
        )

    def read(name: str, source: str) -> Planner:
        base = _pipeline(accelerator.load(source, settings.checkpoint_config), accelerator)
        return _planner(base, None, accelerator, settings, upscalers, name)

    def install(planner: Planner) -> None:
        with torch.inference_mode(False):
            accelerator.prepare(planner.base)
        warm_up(planner, accelerator)

    def free() -> float:
        accelerator.free_memory()
        return SPARE * accelerator.free_bytes()

    budget = settings.models_memory_gb * 1e9 or math.inf
    return Shelf(first, sources, read=read, install=install, free=free, budget=budget)


def _planner(
    base: Pipeline,
    refiner: Pipeline | None,
    accelerator: Accelerator,
    settings: Settings,
    upscalers: Upscalers,
    name: str | None = None,
) -> Planner:
    adopt = partial(accelerator.adopt, size=base.latent_size)
    adapters = Adapters(settings, base, adopt)
    return Planner(base, refiner, settings, CostModel(), adapters, upscalers, name)


def _tiny_vae(folder: str | None, base: Pipeline, accelerator: Accelerator) -> Any:
    if folder is None:
        return None
    from diffusers import AutoencoderTiny

    try:
        vae = AutoencoderTiny.from_pretrained(folder, dtype=accelerator.dtype, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"SD_PREVIEW_VAE={folder}: {error}") from error
    if vae.config.latent_channels != base.latent_channels:
        raise ConfigurationError(f"SD_PREVIEW_VAE={folder} is for latents of another shape")
    return vae.to(accelerator.device).eval().requires_grad_(False)


def load_pipeline(source: str, accelerator: Accelerator, config: str | None = None) -> Pipeline:
    """Load a model and prepare it for the accelerator."""
    started = time.monotonic()
    pipeline = _pipeline(accelerator.load(source, config), accelerator)
    accelerator.prepare(pipeline)
    logger.info("loaded %s in %.1f s", pipeline.checkpoint.name, time.monotonic() - started)
    return pipeline


def _pipeline(checkpoint: Checkpoint, accelerator: Accelerator) -> Pipeline:
    return PIPELINES[checkpoint.family](checkpoint, accelerator.device, accelerator.dtype)


def warm_up(planner: Planner, accelerator: Accelerator) -> None:
    """Draw a little through every part, and calibrate the cost model with what it took."""
    cost, memory = planner.cost, planner.memory
    samples: list[tuple[int, int, float]] = []
    started = time.perf_counter()
    most = min(4, max(accelerator.buckets, default=8) // 2)  # guided images take two rows
    for images in (1, 1, most):  # the first call pays for initialisation, the second is measured
        step = partial(_timed_step, _rows(planner, images), accelerator)
        sample, held = accelerator.measure(step)
        samples = [*samples, sample][-2:]
        if time.perf_counter() - started > WARM_UP_S:
            break
    cost.calibrate(samples)
    unet_rows, area, _ = samples[-1]
    rows, decoding = _rows(planner, 1), time.perf_counter()
    decoded, decode_held = accelerator.measure(lambda: list(decode(rows, accelerator)))
    cost.decode_rate = (time.perf_counter() - decoding) / area
    for _, pixels in decoded:
        if isinstance(pixels, Exception):
            raise pixels
    memory.row_rate, memory.decode_rate = held / (unet_rows * area), decode_held / area
    memory.budget = SPARE * accelerator.free_bytes()
    logger.info(
        "warm: a step takes %.1f ms, %.2f ms more a row",
        1000 * cost.step(2, area),
        1000 * cost.share(area),
    )


def _rows(planner: Planner, images: int) -> list[Row]:
    request = planner.plan(Ticket(_parameters(planner, images)), _inputs(planner))
    ((_, rows),) = Preparer(0).prepare([request])
    if isinstance(rows, Exception):
        raise rows
    return rows


def _parameters(planner: Planner, images: int) -> Parameters:
    task: type[Parameters] = Inpaint if planner.base.inpaints_only else TextToImage
    return task(prompt="warm up", num_images_per_prompt=images, seed=0)


def _timed_step(rows: list[Row], accelerator: Accelerator) -> tuple[int, int, float]:
    """(UNet rows, area, seconds) of one call."""
    unet_rows, area = sum(row.unet_rows for row in rows), rows[0].key.area
    batch = Batch(rows, accelerator)
    started = time.perf_counter()
    batch.step()
    accelerator.synchronize()
    return unet_rows, area, time.perf_counter() - started


def _inputs(planner: Planner) -> Inputs:
    from PIL.Image import new

    if not planner.base.inpaints_only:
        return Inputs()
    height, width = planner.base.native_size
    return Inputs(new("RGB", (width, height)), new("L", (width, height), 255))
