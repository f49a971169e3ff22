"""Requests that generate images are planned here; `prepare` makes their rows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from torch import Tensor

from runnables.engine import hires
from runnables.engine.hires import LATENT, SecondPass
from runnables.engine.loaded_model import LoadedModel
from runnables.engine.scheduling import Tasks, urgency
from runnables.engine.size import check_pixels, size_of
from runnables.errors import InvalidInput
from runnables.extensions.base import Extension
from runnables.families.base import Family, Size
from runnables.families.latents import fitted
from runnables.families.text.prompts import texts_of
from runnables.parameters import (
    FEATURES,
    ImageToImage,
    Inpaint,
    Resolved,
    ResolvedImageToImage,
    ResolvedInpaint,
    TextToImage,
)
from runnables.samplers.compile import compile_table
from runnables.samplers.names import Sampler
from runnables.samplers.table import SamplerTable
from runnables.ticket import Inputs, Ticket

if TYPE_CHECKING:
    from PIL.Image import Image

COST_UNIT = 64 * 64  # latent positions of 512x512 pixels
REFINER_SHARE = 0.2  # the refiner runs the last fifth of the noise levels (arXiv:2307.01952, 2.5)


@dataclass(eq=False)
class Denoise:
    """This kind of `Work` is a ticket with everything decided that needs no device.

    What follows from that is computed once: hundreds that wait are summed up whenever one begins.

    Attributes:
        size: (height, width) in pixels.
        stages: model and sampler table of each stage of the first pass.
        inputs: the pictures, fitted to the size.
        calls: denoiser calls of the first pass, as if the base model made them all.
        second_pass: the stage after them, at a larger size.
        loaded: what the extensions that it asks for have loaded for it.
        finished: (H, W, 3) uint8 pixels of its images that are decoded, by seed.
        preview: one that is being made, with the number of steps that it shows.
    """

    ticket: Ticket
    model: LoadedModel
    parameters: Resolved
    size: Size
    stages: list[tuple[Family, SamplerTable]]
    inputs: Inputs
    calls: int
    second_pass: SecondPass | None = None
    seconds: float = 0.0
    urgency: float = 0.0
    expires: float = 0.0
    loaded: dict[Extension, Any] = field(default_factory=dict)
    finished: dict[int, Tensor] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)
    preview: tuple[Future[Image | None], int] | None = None

    @property
    def extensions(self) -> list[Extension]:
        """Return the extensions that the request asks for."""
        return self.model.wanted(self.parameters)

    @property
    def guided(self) -> bool:
        """Return whether a second, unconditional row is run."""
        traits = self.model.base.traits
        return self.parameters.guidance_scale > 1 and not traits.distilled_guidance

    @property
    def area(self) -> int:
        """Return the latent positions of one image."""
        return self.model.base.traits.area(self.size)

    @property
    def seeds(self) -> range:
        """Return the seed of each image."""
        first = self.parameters.seed
        return range(first, first + self.parameters.num_images_per_prompt)

    @cached_property
    def steps(self) -> int:
        """Return the denoiser calls of one image."""
        return sum(steps for steps, _ in self.passes)

    @property
    def weight(self) -> float:
        """Return what extensions add to every denoiser row, as a fraction of the row."""
        return sum(one.cost(self.parameters) for one in self.extensions)

    @property
    def extra_rows(self) -> float:
        """Return the denoiser rows that extensions add to an image, on average over the steps."""
        return sum(one.extra_rows(self.parameters) for one in self.extensions)

    @cached_property
    def load(self) -> float:
        """Return the denoiser rows of one image; what extensions add counts as fractions of one."""
        return ((2 if self.guided else 1) + self.extra_rows) * (1 + self.weight)

    @property
    def rows_to_come(self) -> float:
        return len(self.seeds) * self.load

    @cached_property
    def passes(self) -> list[tuple[int, int]]:
        """Return the denoiser calls and latent positions of each pass of one image."""
        first = [(sum(len(table) for _, table in self.stages), self.area)]
        second = self.second_pass
        return [*first, (len(second.table), second.area)] if second else first

    @cached_property
    def work(self) -> float:
        """Return the load of all calls x their latent positions."""
        return self.load * len(self.seeds) * sum(steps * area for steps, area in self.passes)

    @property
    def cost_units(self) -> float:
        """Return the work in units of 64x64 latent positions."""
        return self.work / COST_UNIT

    @property
    def share_s(self) -> float:
        cost, images = self.model.cost, len(self.seeds)
        _, area = self.passes[-1]
        return cost.share(self.work, self.steps * images) + cost.decode(images, area)

    def text_additions(self, family: Family) -> tuple[Any, ...]:
        """Return what extensions add to the prompts' encoding; nothing for a refiner."""
        if family is not self.model.base:
            return ()
        added = (one.text(loaded) for one, loaded in self.loaded.items())
        return tuple(one for one in added if one is not None)

    def begin(self, prepare: Callable[[Denoise], None], tasks: Tasks) -> None:
        prepare(self)

    def read(self) -> None:
        self.loaded = {one: one.load(self.parameters) for one in self.extensions}
        _check_memory(self)

    def release(self) -> None:
        self.finished, self.loaded = {}, {}
        self.inputs = Inputs()
        self.second_pass = self.preview = None


def plan(model: LoadedModel, ticket: Ticket, inputs: Inputs) -> Denoise:
    """Decide everything about a request, and load nothing.

    Raises:
        InvalidInput: (400, 404, 413) naming the field that cannot be served.
    """
    requested = ticket.parameters
    assert isinstance(requested, TextToImage)
    traits, checkpoint = model.base.traits, model.base.checkpoint
    _check_features(model, requested)
    size = size_of(requested, inputs.image, traits, model.settings.max_pixels)
    if checkpoint.compiled is not None:
        checkpoint.compiled.check(size)
    parameters = requested.resolve(
        checkpoint.profile,
        model=model.name,
        height=size[0],
        width=size[1],
    )
    work = Denoise(
        ticket=ticket,
        model=model,
        parameters=parameters,
        size=size,
        stages=_stages(model, parameters),
        calls=len(_table(model.base, parameters)),
        inputs=fitted(inputs, size),
        second_pass=_second_pass(model, parameters, size),
    )
    _check_memory(work)
    _schedule(work)
    return work


def _check_memory(work: Denoise) -> None:
    """Raise PayloadTooLarge where an image cannot be generated in the memory that is left."""
    model = work.model
    model.share_memory()
    beside = max((one.beside(work.parameters) for one in work.extensions), default=0.0)
    rows = (2 if work.guided else 1) * (1 + beside)
    model.memory.check(work.area, rows)
    if second := work.second_pass:
        model.memory.check(second.area, rows, ("hires", "scale"))


def _schedule(work: Denoise) -> None:
    model, parameters = work.model, work.parameters
    images = parameters.num_images_per_prompt
    seconds = sum(model.cost.alone(steps, work.load, images, area) for steps, area in work.passes)
    if (second := work.second_pass) and second.upscaler:
        tiles = images * second.upscaler.turns(work.size)
        seconds += model.cost.turns(second.upscaler.name, tiles)
    work.seconds = seconds
    work.expires = work.ticket.submitted + model.allowed_s(parameters)
    work.urgency = urgency(work.ticket, seconds, work.expires)


# -- checks -----------------------------------------------------------------------------------


def _check_features(model: LoadedModel, parameters: TextToImage) -> None:
    traits = model.base.traits
    if traits.inpaints_only and not isinstance(parameters, Inpaint):
        raise InvalidInput("this model only inpaints: send image and mask to /inpaint")
    if traits.text_only and isinstance(parameters, ImageToImage):
        raise InvalidInput(
            f"{traits.family} models generate from text alone: {parameters.task} is not offered"
        )
    first, last = parameters.guidance_interval or (0.0, 1.0)
    if not 0 <= first < last <= 1:
        raise InvalidInput(
            "guidance_interval must be [first, last] with 0 <= first < last <= 1",
            loc=("guidance_interval",),
        )
    for name in parameters.used(FEATURES):
        traits.check(name)
    for extension in model.wanted(parameters):
        extension.check(parameters)
    _check_text(model.base, parameters)


def _check_text(family: Family, parameters: TextToImage) -> None:
    deepest = family.traits.deepest_clip_skip
    if parameters.clip_skip > deepest:
        raise InvalidInput(
            f"clip_skip is {parameters.clip_skip}, but this model has layers for {deepest}",
            loc=("clip_skip",),
        )
    family.check(texts_of(parameters))


# -- stages -----------------------------------------------------------------------------------


def _stages(model: LoadedModel, parameters: Resolved) -> list[tuple[Family, SamplerTable]]:
    if model.refiner is None or isinstance(parameters, ResolvedImageToImage):
        return [(model.base, _table(model.base, parameters))]
    cut = 1 - REFINER_SHARE
    return [
        (model.base, _table(model.base, parameters, denoising_end=cut)),
        (model.refiner, _table(model.refiner, parameters, denoising_start=cut)),
    ]


def _second_pass(model: LoadedModel, parameters: Resolved, size: Size) -> SecondPass | None:
    wanted, base = parameters.hires, model.base
    if wanted is None:
        return None
    larger = hires.enlarged(size, wanted.scale, base.traits)
    check_pixels(larger, model.settings.max_pixels, ("hires", "scale"))
    steps = wanted.num_inference_steps or parameters.num_inference_steps
    try:
        table = table_of(base, parameters.scheduler, steps, larger, strength=wanted.strength)
    except InvalidInput as error:
        raise InvalidInput(f"hires: {error.message}", loc=("hires", *error.loc)) from error
    named, upscaler = wanted.upscaler, None
    if named != LATENT:
        upscaler = model.upscalers.get(named, ("hires", "upscaler"))
    return SecondPass(base, table, larger, upscaler)


def _table(family: Family, parameters: Resolved, **cut: float) -> SamplerTable:
    """Return the table of the first pass."""
    return table_of(
        family,
        parameters.scheduler,
        parameters.num_inference_steps,
        (parameters.height, parameters.width),
        strength=parameters.strength if isinstance(parameters, ResolvedImageToImage) else None,
        pure_noise=pure_noise(parameters),
        **cut,
    )


def table_of(
    family: Family,
    sampler: Sampler,
    steps: int,
    size: Size,
    *,
    strength: float | None = None,
    pure_noise: bool = False,
    **cut: float,
) -> SamplerTable:
    """Return a sampler's table for one pass of this model.

    Raises:
        InvalidInput: the sampler does not fit the model, cannot run so few or so many steps, or no
            step is left to run.
    """
    levels = family.levels(size, steps)
    try:
        return compile_table(
            sampler,
            family.checkpoint.scheduler_config,
            steps,
            strength=strength,
            pure_noise=pure_noise,
            mu=levels.mu,
            sigmas=levels.sigmas,
            **cut,
        )
    except ValueError as error:  # the scheduler itself refuses this number of steps
        raise InvalidInput(
            f"{sampler} cannot run {steps} steps: {error}", loc=("num_inference_steps",)
        ) from error


def pure_noise(parameters: Resolved) -> bool:
    """Return whether nothing of an input image shows in the first latents."""
    if isinstance(parameters, ResolvedInpaint):
        return parameters.strength == 1.0
    return not isinstance(parameters, ResolvedImageToImage)
