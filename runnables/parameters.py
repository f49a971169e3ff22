"""Every parameter of a request has its name, limit, default and description here.

Names are those of diffusers' pipelines. The models are frozen and refuse unknown fields, so what
has been parsed once is trusted everywhere below. A value of `None` means "as the model's profile
says"; `Parameters.resolve` fills it in.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from runnables.samplers.names import DEFAULT, Sampler, resolve

MAX_SEED = 2**53 - 1  # the largest integer that JavaScript holds exactly
RANDOM_SEED = -1  # what the WebUI and other programs send for "any seed"
SIZE_MULTIPLE = 8  # the VAE halves the image three times
MULTIPLES = "a multiple of 8 (of 16 for models with a transformer)"
MAX_SIZE = 4096
MAX_CONTROLNETS = 3
MAX_IMAGES = 10  # of one request, as at OpenAI
MAX_PROMPT = 32_000  # characters, as at OpenAI
MAX_SAMPLER_NAME = 100

#: parameters that not every model takes; a family's traits say which of them it does
FEATURES = frozenset(
    {
        "loras",
        "controlnets",
        "embeddings",
        "deep_cache_interval",
        "prompt_syntax",
        "clip_skip",
        "hires",
        "skip_layer_guidance",
    }
)

Task = Literal["txt2img", "img2img", "inpaint", "upscale"]
OutputFormat = Literal["png", "jpeg", "webp", "json"]
Priority = Literal["low", "normal", "high"]
Syntax = Literal["plain", "compel", "webui"]

Size = Annotated[int, Field(ge=SIZE_MULTIPLE, le=MAX_SIZE)]
Deadline = Annotated[
    float | None,
    Field(gt=0, le=3600, description="Give up (504) when not finished after this many seconds."),
]
Output = Annotated[
    OutputFormat | None,
    Field(
        description="png, jpeg, webp, or json (base64). Default: the `Accept` header, else jpeg."
    ),
]
EmbeddingName = Annotated[str, Field(min_length=1, max_length=200)]
#: (first, last); the schema says it with `items`, as BentoML's client knows no `prefixItems`
Interval = Annotated[
    tuple[float, float],
    WithJsonSchema({"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}),
]


def _sampler(value: object) -> Sampler:
    """Return the sampler of a name; return a sampler unchanged."""
    if isinstance(value, Sampler):
        return value
    if not isinstance(value, str) or len(value) > MAX_SAMPLER_NAME:
        raise ValueError(f"must be a sampler's name of at most {MAX_SAMPLER_NAME} characters")
    return resolve(value)


#: a sampler, which JSON names: resolved once, where a request is parsed
SamplerByName = Annotated[
    Sampler,
    PlainValidator(_sampler),
    PlainSerializer(str, return_type=str),
    WithJsonSchema(
        {
            "type": "string",
            "maxLength": MAX_SAMPLER_NAME,
            "examples": ["default", "euler_a", "dpmpp_2m_karras"],
        }
    ),
]


class LoraUse(BaseModel):
    """This names a LoRA, and how strongly it acts."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="A name from `GET /loras`.")
    weight: float = Field(1.0, ge=-4, le=4)
    text_weight: float | None = Field(
        None, ge=-4, le=4, description="In the text encoders. Default: `weight`."
    )

    @property
    def in_text(self) -> float:
        """The weight in the text encoders."""
        return self.weight if self.text_weight is None else self.text_weight


class ControlNetUse(BaseModel):
    """This names a ControlNet, how strongly it acts, and between which fractions of the steps."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1, max_length=200, description="A name from `GET /controlnets`.")
    weight: float = Field(1.0, ge=0, le=2, description="diffusers' controlnet_conditioning_scale.")
    start: float = Field(0.0, ge=0, le=1, description="diffusers' control_guidance_start.")
    end: float = Field(1.0, ge=0, le=1, description="diffusers' control_guidance_end.")

    @model_validator(mode="after")
    def _check_span(self) -> Self:
        if self.start >= self.end:
            raise ValueError("start must be smaller than end")
        return self


class SkipLayerGuidance(BaseModel):
    """This guides away from what the model generates without some of its layers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    layers: tuple[Annotated[int, Field(ge=0, le=200)], ...] = Field(
        (7, 8, 9), min_length=1, max_length=32, description="diffusers' skip_guidance_layers."
    )
    scale: float = Field(2.8, ge=0, le=20, description="diffusers' skip_layer_guidance_scale.")
    start: float = Field(0.01, ge=0, le=1, description="diffusers' skip_layer_guidance_start.")
    stop: float = Field(0.2, ge=0, le=1, description="diffusers' skip_layer_guidance_stop.")


class Hires(BaseModel):
    """A second pass enlarges the generated image, and generates it again at the larger size."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    scale: float = Field(
        2.0, gt=1, le=4, description="Times the size of the first pass, rounded to a valid size."
    )
    strength: float = Field(
        0.7, gt=0, le=1, description="How much the second pass changes, as img2img's `strength`."
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=150, description="Of the second pass. Default: those of the first."
    )
    upscaler: str = Field(
        "latent",
        min_length=1,
        max_length=200,
        description="latent enlarges the latents (bilinear); other names, those of "
        "`GET /upscalers`, enlarge the decoded picture.",
    )


class Profile(BaseModel):
    """A profile has one model's defaults of the parameters that a request leaves out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    num_inference_steps: int = Field(50, ge=1, le=150)
    guidance_scale: float = Field(7.5, ge=0, le=50)
    guidance_rescale: float = Field(0.0, ge=0, le=1)
    scheduler: SamplerByName = Field(
        DEFAULT, description="'default' is the one in the model's own folder"
    )
    height: int | None = Field(None, description="Native height; None: from the denoiser's config")
    width: int | None = Field(None, description="Native width; None: from the denoiser's config")


def _random_seed(seed: int | None) -> int | None:
    return None if seed == RANDOM_SEED else seed


class Parameters(BaseModel):
    """Every task takes these parameters."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        protected_namespaces=(),
    )
    task: ClassVar[Task]

    prompt: str = Field(min_length=1, max_length=MAX_PROMPT, description="What to generate.")
    model: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description="Which model generates, a name from `GET /models`. Default: the first of them.",
    )
    negative_prompt: str = Field(
        "", max_length=MAX_PROMPT, description="What to keep out; acts through guidance."
    )
    prompt_syntax: Syntax = Field(
        "plain",
        description="compel reads weights in both prompts, such as `a (red)1.4 cat-- on grass`, "
        "`.and()` and `.blend()` (https://github.com/damian0815/compel), of at most 1,000 "
        "characters; webui reads those of the "
        "Stable Diffusion WebUI, such as `a (red:1.4) cat on [grass]`. plain: every character "
        "is part of the text. Prompts of more than 77 tokens are encoded whole in each syntax.",
    )
    clip_skip: int = Field(
        0,
        ge=0,
        le=32,
        description="Layers of the text encoders left out at the end for the prompt, counted as "
        "diffusers does (WebUI's Clip skip 2 is 1 here).",
    )
    loras: tuple[LoraUse, ...] = Field(
        (), max_length=8, description="LoRAs, each with its weight; for this request alone."
    )
    controlnets: tuple[ControlNetUse, ...] = Field(
        (),
        max_length=MAX_CONTROLNETS,
        description="ControlNets (arXiv:2302.05543). Send as many parts `control`, in this order: "
        "images as the ControlNet was trained on (edges, poses, depths), taken as they are and "
        "resized to height x width.",
    )
    embeddings: tuple[EmbeddingName, ...] = Field(
        (),
        max_length=8,
        description="Textual inversions (arXiv:2208.01618), names from `GET /embeddings`: each is "
        "a word of both prompts, for this request alone.",
    )
    guidance_scale: float | None = Field(
        None,
        ge=0,
        le=50,
        description="How strongly the prompt pulls (classifier-free guidance, arXiv:2207.12598). "
        "1 or less generates without guidance. Default: the model's profile.",
    )
    guidance_rescale: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Against over-exposure (arXiv:2305.08891, section 3.4). "
        "Default: the model's profile.",
    )
    guidance_interval: Interval | None = Field(
        None,
        description="Guide only between these fractions of the steps (arXiv:2404.07724), such as "
        "[0.0, 0.6]: faster, and the image changes a little. Default: all steps.",
    )
    deep_cache_interval: int = Field(
        1,
        ge=1,
        le=10,
        description="Run the whole UNet at every n-th step only, and its outermost blocks between "
        "(DeepCache, arXiv:2312.00858): faster, and the image changes a little. 1: every step.",
    )
    skip_layer_guidance: SkipLayerGuidance | None = Field(
        None,
        description="For Stable Diffusion 3.5 Medium: guide away from what the transformer "
        "predicts without some of its layers, between two fractions of the steps (a third row "
        "there). Its authors suggest the defaults. Default: none.",
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=150, description="Denoising steps. Default: the model's profile."
    )
    seed: Annotated[int | None, AfterValidator(_random_seed)] = Field(
        None,
        ge=RANDOM_SEED,
        le=MAX_SEED,
        description="The same seed, parameters and model give the same image. Default, and -1: "
        "random; the response's header `seed` reports it.",
    )
    scheduler: SamplerByName | None = Field(
        None,
        description="The sampler, a name from `GET /samplers`. Default: the model's own.",
    )
    num_images_per_prompt: int = Field(
        1, ge=1, le=MAX_IMAGES, description="Image i is generated with seed + i."
    )
    safety_check: bool = Field(
        True, description="Honoured as far as the operator's policy allows; this request only."
    )
    priority: Priority = Field("normal", description="Which requests are served first.")
    deadline_s: Deadline = None
    output_format: Output = None

    def used(self, names: Iterable[str]) -> list[str]:
        """Return the names among these parameters that are not at their defaults."""
        fields = type(self).model_fields
        return [n for n in names if n in fields and getattr(self, n) != fields[n].default]

    def random_seed(self) -> int:
        """Return a seed with which that of the last image is a seed, too."""
        return secrets.randbelow(MAX_SEED - self.num_images_per_prompt)


class TextToImage(Parameters):
    """`/txt2img`: generate what the prompt says."""

    task: ClassVar[Task] = "txt2img"
    height: Size | None = Field(
        None, description=f"Pixels, {MULTIPLES}. Default: the model's native size."
    )
    width: Size | None = Field(
        None, description=f"Pixels, {MULTIPLES}. Default: the model's native size."
    )
    hires: Hires | None = Field(
        None,
        description="A second pass at a larger size; height and width are the first one's. "
        "Default: none.",
    )

    def resolve(self, profile: Profile, **decided: Any) -> Resolved:
        """Return the parameters complete: with the profile's defaults, and a random seed.

        Args:
            decided: what the model decides: its name, height and width.
        """
        left: dict[str, Any] = {
            "num_inference_steps": profile.num_inference_steps,
            "guidance_scale": profile.guidance_scale,
            "guidance_rescale": profile.guidance_rescale,
            "scheduler": profile.scheduler,
            "guidance_interval": (0.0, 1.0),
            "seed": self.random_seed(),
        }
        values = {name: getattr(self, name) for name in type(self).model_fields}
        values |= {name: value for name, value in left.items() if values[name] is None} | decided
        if self.hires is not None and self.hires.num_inference_steps is None:
            steps = {"num_inference_steps": values["num_inference_steps"]}
            values["hires"] = self.hires.model_copy(update=steps)
        return _RESOLVED[self.task].model_construct(**values)


class ImageToImage(TextToImage):
    """`/img2img`: generate an image again as the prompt says."""

    task: ClassVar[Task] = "img2img"
    height: Size | None = Field(
        None,
        description=f"Pixels, {MULTIPLES}. Default: the input's shape, scaled to `width` or, "
        "without it, to the model's native area.",
    )
    width: Size | None = Field(None, description="As `height`.")
    strength: float = Field(
        0.8,
        gt=0,
        le=1,
        description="How much to change: the share of the steps that are run (arXiv:2108.01073).",
    )


class Inpaint(ImageToImage):
    """`/inpaint`: repaint the white area of the mask, keep the rest."""

    task: ClassVar[Task] = "inpaint"
    hires: None = Field(None, description="There is no second pass here.")


class Resolved(TextToImage):
    """These complete parameters are what the engine works on and reports."""

    model: str
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    guidance_interval: Interval
    seed: int
    scheduler: SamplerByName
    height: int
    width: int


class ResolvedImageToImage(Resolved, ImageToImage):
    """These are the complete parameters of `/img2img`."""


class ResolvedInpaint(ResolvedImageToImage, Inpaint):
    """These are the complete parameters of `/inpaint`."""

    hires: None = None


_RESOLVED: dict[Task, type[Resolved]] = {
    model.task: model for model in (Resolved, ResolvedImageToImage, ResolvedInpaint)
}


class Upscale(BaseModel):
    """`/upscale`: enlarge an image as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    task: ClassVar[Task] = "upscale"
    num_images_per_prompt: ClassVar[int] = 1
    #: what only generated images have
    model: ClassVar[str | None] = None
    controlnets: ClassVar[tuple[ControlNetUse, ...]] = ()

    upscaler: str = Field(
        "lanczos", min_length=1, max_length=200, description="A name from `GET /upscalers`."
    )
    scale: float | None = Field(
        None,
        gt=1,
        le=4,
        description="Times the input's size. Default: the upscaler's own, 2 for lanczos.",
    )
    priority: Priority = Field("normal", description="Which requests are served first.")
    deadline_s: Deadline = None
    output_format: Output = None


AnyParameters = Parameters | Upscale
DRAWINGS: dict[Task, type[Parameters]] = {
    model.task: model for model in (TextToImage, ImageToImage, Inpaint)
}
MODELS: dict[Task, type[AnyParameters]] = {**DRAWINGS, Upscale.task: Upscale}
