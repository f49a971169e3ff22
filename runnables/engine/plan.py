"""From parameters to work: sizes, tables, cost and urgency. Refuses what cannot be drawn."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from runnables.engine import hires
from runnables.engine.cost import CostModel
from runnables.engine.hires import LATENT, SecondPass
from runnables.engine.memory import MemoryModel
from runnables.engine.size import check_pixels, size_of
from runnables.errors import InvalidInput
from runnables.extensions.adapters import Adapters
from runnables.extensions.controlnet.residuals import COST, Control, ControlSet, kept
from runnables.extensions.lora.layers import LoraSet
from runnables.extensions.textual_inversion.vocabulary import Concepts
from runnables.families.base import Pipeline
from runnables.families.latents import control_to_pixels, image_to_pixels, mask_to_pixels
from runnables.parameters import ImageToImage, Inpaint, Parameters, Priority, TextToImage
from runnables.samplers.compile import compile_table
from runnables.samplers.table import SamplerTable
from runnables.ticket import Inputs, Ticket
from runnables.upscalers.library import Upscalers

if TYPE_CHECKING:
    from PIL.Image import Image

    from runnables.engine.row import Row
    from runnables.settings import Settings
    from runnables.upscalers.upscaler import Upscaler

#: A request may wait this many times its own drawing time before others of its class overtake it.
PATIENCE: Mapping[Priority, float] = {"high": 1.0, "normal": 4.0, "low": 16.0}
NOTHING = Inputs()
COST_UNIT = 64 * 64  # latent positions of 512x512 pixels
REFINER_SHARE = 0.2  # the refiner runs the last fifth of the noise levels (arXiv:2307.01952, 2.5)


@dataclass(eq=False)
class Request:
    """A ticket with everything decided that needs no device.

    Attributes:
        planner: whose model draws it.
        size: (height, width) in pixels.
        stages: pipeline and sampler table of each stage of the first pass.
        second_pass: the stage after them, at a larger size.
        pixels, mask: the input image (1, 3, H, W) and mask (1, 1, H, W).
        cost: estimated seconds alone on the machine.
        urgency: the time (time.monotonic) by which it should be served; smaller goes first.
        expires: the time at which it fails with DeadlineExceeded.
    """

    ticket: Ticket
    planner: Planner
    parameters: TextToImage
    size: tuple[int, int]
    stages: list[tuple[Pipeline, SamplerTable]]
    pixels: Tensor | None
    mask: Tensor | None
    cost: float
    urgency: float
    expires: float
    loras: LoraSet = ()
    controls: ControlSet = ()
    concepts: Concepts = ()
    second_pass: SecondPass | None = None
    rows: list[Row] = field(default_factory=list)
    finished: dict[int, Tensor] = field(default_factory=dict)
    clock: dict[str, float] = field(default_factory=dict)

    @property
    def area(self) -> int:
        """Latent positions of one image."""
        factor = self.stages[0][0].scale_factor
        return self.size[0] * self.size[1] // factor**2

    def loras_of(self, pipeline: Pipeline) -> LoraSet:
        """Those of a stage: a refiner is drawn with none."""
        return self.loras if pipeline is self.stages[0][0] else ()

    def controls_of(self, pipeline: Pipeline) -> ControlSet:
        """As `loras_of`."""
        return self.controls if pipeline is self.stages[0][0] else ()

    def concepts_of(self, pipeline: Pipeline) -> Concepts:
        """Those of a stage: to a refiner their names are ordinary words."""
        return self.concepts if pipeline is self.stages[0][0] else ()

    @property
    def steps(self) -> int:
        """UNet calls of one image."""
        return self._first_steps + (len(self.second_pass.table) if self.second_pass else 0)

    @property
    def guided(self) -> bool:
        """Whether a second, unconditional row is run."""
        scale = self.parameters.guidance_scale or 0.0
        return scale > 1 and not self.stages[0][0].distilled_guidance

    @property
    def seeds(self) -> range:
        """One seed an image."""
        first = self.parameters.seed or 0
        return range(first, first + self.parameters.num_images_per_prompt)

    @property
    def unet_rows(self) -> int:
        """UNet rows of one image."""
        return 2 if self.guided else 1

    @property
    def load(self) -> float:
        """UNet rows of one image, ControlNets counted as parts of one."""
        return self.unet_rows * (1 + COST * len(self.controls))

    def release(self) -> None:
        """Let go of tensors at the end: rows and request hold each other, and would stay on."""
        self.rows, self.finished = [], {}
        self.pixels = self.mask = None
        self.controls = ()

    @property
    def work(self) -> float:
        """UNet rows in all, ControlNets as parts of one, x their latent positions."""
        return self.load * len(self.seeds) * sum(steps * area for steps, area in self.passes)

    @property
    def passes(self) -> list[tuple[int, int]]:
        """UNet calls and latent positions of each pass of one image."""
        first = [(self._first_steps, self.area)]
        second = self.second_pass
        return [*first, (len(second.table), second.area)] if second else first

    @property
    def _first_steps(self) -> int:
        return sum(len(table) for _, table in self.stages)

    @property
    def cost_units(self) -> float:
        """The same in units of 64x64 latent positions."""
        return self.work / COST_UNIT


class Planner:
    """Plans requests for one base model and, where there is one, its refiner.

    Attributes:
        name: what requests call the model.
        nbytes: of all its weights.
    """

    def __init__(
        self,
        base: Pipeline,
        refiner: Pipeline | None,
        settings: Settings,
        cost: CostModel,
        adapters: Adapters | None = None,
        upscalers: Upscalers | None = None,
        name: str | None = None,
    ) -> None:
        self.name = name or base.checkpoint.name
        self.nbytes = base.checkpoint.nbytes + (refiner.checkpoint.nbytes if refiner else 0)
        self.base = base
        self.refiner = refiner
        self.settings = settings
        self.cost = cost
        self.memory = MemoryModel()
        self.adapters = adapters or Adapters(settings, base)
        self.upscalers = upscalers or Upscalers(settings, base.device)

    def plan(self, ticket: Ticket, inputs: Inputs = NOTHING) -> Request:
        """Raises InvalidInput (400, 404, 413) naming the field that cannot be served."""
        assert isinstance(ticket.parameters, TextToImage)
        image, mask, controls = inputs.image, inputs.mask, inputs.controls
        parameters = ticket.parameters.resolve(self.base.checkpoint.profile)
        self._check_task(parameters)
        size = size_of(parameters, image, self.base, self.settings.max_pixels)
        self._check_static(parameters, size)
        parameters = parameters.model_copy(
            update={
                "model": self.name,
                "height": size[0],
                "width": size[1],
                "hires": hires.resolve(parameters),
            }
        )
        stages = self._stages(parameters)
        request = Request(
            ticket=ticket,
            planner=self,
            parameters=parameters,
            size=size,
            stages=stages,
            pixels=image_to_pixels(image, size) if image is not None else None,
            mask=mask_to_pixels(mask, size) if mask is not None else None,
            cost=0.0,
            urgency=0.0,
            expires=0.0,
            loras=self.adapters.lora_set(parameters.loras),
            controls=self._controls(parameters, parameters, size, controls),
            concepts=self.adapters.concepts(parameters),
            second_pass=self._second_pass(parameters, size, controls),
        )
        self._check_memory(request)
        self._schedule(request)
        return request

    def _check_memory(self, request: Request) -> None:
        self.memory.adapters = self.adapters.nbytes
        held = 1 + COST * bool(request.controls)  # ControlNets are run one after the other
        self.memory.check(request.area, request.unet_rows * held)
        if second := request.second_pass:
            self.memory.check(second.area, request.unet_rows * held, ("hires", "scale"))

    def _schedule(self, request: Request) -> None:
        parameters, submitted = request.parameters, request.ticket.submitted
        images = parameters.num_images_per_prompt
        request.cost = sum(
            self.cost.alone(steps, request.load, images, area) for steps, area in request.passes
        )
        if (second := request.second_pass) and second.upscaler:
            turns = images * second.upscaler.turns(request.size)
            request.cost += self.cost.turns(second.upscaler.name, turns)
        allowed = parameters.deadline_s or self.settings.request_timeout_s
        request.expires = submitted + allowed
        wait = PATIENCE[parameters.priority] * request.cost
        request.urgency = min(submitted + wait, request.expires - request.cost)
        request.clock["planned"] = time.monotonic()

    def _check_task(self, parameters: TextToImage) -> None:
        if self.base.inpaints_only and not isinstance(parameters, Inpaint):
            raise InvalidInput("this model only inpaints: send image and mask to /inpaint")
        first, last = parameters.guidance_interval or (0.0, 1.0)
        if not 0 <= first < last <= 1:
            raise InvalidInput(
                "guidance_interval must be [first, last] with 0 <= first < last <= 1",
                loc=("guidance_interval",),
            )
        if parameters.controlnets and parameters.deep_cache_interval > 1:
            raise InvalidInput(
                "deep_cache_interval skips what ControlNets act on: leave out one of the two",
                loc=("deep_cache_interval",),
            )
        self._check_text(parameters)

    def _check_static(self, parameters: TextToImage, size: tuple[int, int]) -> None:
        """What a compiled model has no graph for is refused."""
        compiled = self.base.checkpoint.compiled
        if compiled is None:
            return
        compiled.check(size)
        plain = {
            "deep_cache_interval": 1,
            "prompt_syntax": "plain",
            "loras": (),
            "embeddings": (),
            "controlnets": (),
            "hires": None,
        }
        for name, value in plain.items():
            if getattr(parameters, name) != value:
                raise InvalidInput(f"{name} needs a model that is not compiled", loc=(name,))
        for name in ("prompt", "negative_prompt"):
            if not all(encoder.fits(getattr(parameters, name)) for encoder in self.base.encoders):
                raise InvalidInput(f"{name} is longer than the compiled 77 tokens", loc=(name,))

    def _check_text(self, parameters: TextToImage) -> None:
        deepest = min(encoder.deepest_skip for encoder in self.base.encoders)
        if parameters.clip_skip > deepest:
            raise InvalidInput(
                f"clip_skip is {parameters.clip_skip}, but this model has layers for {deepest}",
                loc=("clip_skip",),
            )
        syntax = parameters.prompt_syntax
        if syntax != "plain":
            from runnables.families.text.weighting import check

            check(parameters.prompt, "prompt", syntax)
            check(parameters.negative_prompt, "negative_prompt", syntax)

    # -- ControlNets ------------------------------------------------------------------------

    def _controls(
        self,
        parameters: TextToImage,
        drawn: TextToImage,
        size: tuple[int, int],
        images: Sequence[Image],
    ) -> ControlSet:
        """Loaded, each with its image, for the pass that draws `drawn` at this size.

        A refiner cuts the steps short, but not their fractions.
        """
        if not parameters.controlnets:
            return ()
        steps = len(self._table(self.base, drawn))
        nets = self.adapters.controlnet_set(parameters.controlnets)
        return tuple(
            Control(
                net, control_to_pixels(image, size), use.weight, kept(use.start, use.end, steps)
            )
            for net, use, image in zip(nets, parameters.controlnets, images, strict=True)
        )

    # -- stages -----------------------------------------------------------------------------

    def _stages(self, parameters: TextToImage) -> list[tuple[Pipeline, SamplerTable]]:
        if self.refiner is None or isinstance(parameters, ImageToImage):
            return [(self.base, self._table(self.base, parameters))]
        cut = 1 - REFINER_SHARE
        return [
            (self.base, self._table(self.base, parameters, denoising_end=cut)),
            (self.refiner, self._table(self.refiner, parameters, denoising_start=cut)),
        ]

    def _second_pass(
        self, parameters: TextToImage, size: tuple[int, int], controls: Sequence[Image]
    ) -> SecondPass | None:
        asked = parameters.hires
        if asked is None:
            return None
        larger = hires.enlarged(size, asked.scale, self.base.scale_factor)
        check_pixels(larger, self.settings.max_pixels, ("hires", "scale"))
        drawn = hires.as_image_to_image(parameters, asked)
        try:
            table = self._table(self.base, drawn)
        except InvalidInput as error:
            raise InvalidInput(f"hires: {error.message}", loc=("hires", *error.loc)) from error
        controlled = self._controls(parameters, drawn, larger, controls)
        return SecondPass(self.base, table, larger, self._upscaler(asked.upscaler), controlled)

    def _upscaler(self, name: str) -> Upscaler | None:
        """None for what enlarges latents."""
        return None if name == LATENT else self.upscalers.get(name, ("hires", "upscaler"))

    def _table(
        self,
        pipeline: Pipeline,
        parameters: TextToImage,
        *,
        denoising_end: float | None = None,
        denoising_start: float | None = None,
    ) -> SamplerTable:
        assert parameters.scheduler is not None and parameters.num_inference_steps is not None
        strength = parameters.strength if isinstance(parameters, ImageToImage) else None
        try:
            return compile_table(
                parameters.scheduler,
                pipeline.checkpoint.scheduler_config,
                parameters.num_inference_steps,
                strength=strength,
                pure_noise=pure_noise(parameters),
                denoising_end=denoising_end,
                denoising_start=denoising_start,
            )
        except ValueError as error:  # the scheduler itself refuses this number of steps
            raise InvalidInput(
                f"{parameters.scheduler} cannot run {parameters.num_inference_steps} steps: "
                f"{error}",
                loc=("num_inference_steps",),
            ) from error


def pure_noise(parameters: Parameters) -> bool:
    """Whether nothing of an input image shows in the first latents."""
    if isinstance(parameters, Inpaint):
        return parameters.strength == 1.0
    return not isinstance(parameters, ImageToImage)
