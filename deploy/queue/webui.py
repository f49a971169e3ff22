"""The body of the WebUI's `/sdapi/v1/txt2img` and `/img2img`, as far as it is drawn here.

What changes the image and is not supported is refused by name rather than left out silently; what
is only about the WebUI itself (saving, sending) is taken and has no effect.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from runnables.parameters import SIZE_MULTIPLE

#: the WebUI's name -> ours
OURS = {
    "prompt": "prompt",
    "negative_prompt": "negative_prompt",
    "steps": "num_inference_steps",
    "cfg_scale": "guidance_scale",
    "width": "width",
    "height": "height",
    "seed": "seed",
    "sampler_name": "scheduler",
    "batch_size": "num_images_per_prompt",
    "denoising_strength": "strength",
}
#: the same of a second pass, and of enlarging
FURTHER = {
    "hires.scale": "hr_scale",
    "hires.strength": "denoising_strength",
    "hires.num_inference_steps": "hr_second_pass_steps",
    "hires.upscaler": "hr_upscaler",
    "hires": "enable_hr",
    "scale": "upscaling_resize",
    "upscaler": "upscaler_1",
}
AUTOMATIC = {None, "", "automatic"}
#: about the WebUI, not about the image
WITHOUT_EFFECT = {
    "save_images",
    "send_images",
    "do_not_save_samples",
    "do_not_save_grid",
    "include_init_images",
    "override_settings_restore_afterwards",
    "force_task_id",
    "infotext",
    "comments",
    "script_args",
    "subseed",
    "seed_resize_from_h",
    "seed_resize_from_w",
    "seed_enable_extras",
    "image_cfg_scale",
    "eta",
    "s_min_uncond",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
}

#: other ways to say how large a second pass is
SIZES = ("hr_resize_x", "hr_resize_y", "firstphase_width", "firstphase_height")
#: those that the WebUI writes otherwise
UPSCALERS = {"latent", "lanczos"}

Off = Annotated[Literal[False, None], BeforeValidator(lambda value: value or None)]


def upscaler(name: str) -> str:
    """Our name of an upscaler; models have one name."""
    return name.lower() if name.lower() in UPSCALERS else name


def linked(links: str | None) -> list[str]:
    """What `image_link` names."""
    return [link.strip() for link in (links or "").split(",") if link.strip()]


class Content(BaseModel):
    """A WebUI body. Fields that are typed `Off` may be sent, but not switched on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    prompt: str
    negative_prompt: str | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    seed: int | None = Field(None, description="-1 or none: follows from the task")
    sampler_name: str | None = None
    sampler_index: str | None = Field(None, description="the older name of sampler_name")
    scheduler: str | None = Field(None, description="noise spacing, as Karras")
    batch_size: int = Field(1, ge=1, le=8)
    n_iter: int = Field(1, ge=1, le=8)
    denoising_strength: float | None = None
    init_images: list[str] = Field(default_factory=list)
    image_link: str | None = Field(None, description="comma-separated URLs or s3:// addresses")
    mask: str | None = None
    override_settings: dict[str, Any] = Field(default_factory=dict)

    enable_hr: bool | None = None
    hr_scale: float | None = None
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = None
    hr_resize_x: int | None = None
    hr_resize_y: int | None = None
    firstphase_width: int | None = None
    firstphase_height: int | None = None
    restore_faces: Off = None
    tiling: Off = None
    script_name: Off = None
    styles: Off = None
    subseed_strength: Off = None
    refiner_checkpoint: Off = None
    refiner_switch_at: Off = None

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: one for name, one in value.items() if name not in WITHOUT_EFFECT}

    @field_validator("width", "height")
    @classmethod
    def _check_size(cls, side: int | None) -> int | None:
        if side is not None and side % SIZE_MULTIPLE:
            nearest = max(SIZE_MULTIPLE, round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise ValueError(f"not a multiple of {SIZE_MULTIPLE}; the nearest is {nearest}")
        return side

    @model_validator(mode="after")
    def _check(self) -> Self:
        unknown = set(self.override_settings) - {"sd_model_checkpoint"}
        if unknown:
            raise ValueError(f"override_settings.{min(unknown)} is not supported")
        for name in SIZES if self.enable_hr else ():
            if getattr(self, name):
                raise ValueError(f"{name} is not supported: the second pass has hr_scale")
        return self

    @property
    def model_override(self) -> Any:
        """`override_settings.sd_model_checkpoint`."""
        return self.override_settings.get("sd_model_checkpoint")

    def links(self) -> list[str]:
        """The input images: `init_images`, else `image_link`."""
        return self.init_images or linked(self.image_link)

    def values(self) -> dict[str, Any]:
        """In our names; what is left out here, the model's profile decides."""
        values = {ours: getattr(self, theirs) for theirs, ours in OURS.items()}
        values["scheduler"] = self._sampler()
        values["num_images_per_prompt"] = self.batch_size * self.n_iter
        values["hires"] = self._hires()
        if self.seed == -1:
            values["seed"] = None
        return {name: value for name, value in values.items() if value is not None}

    def _hires(self) -> dict[str, Any] | None:
        """The second pass, whose strength stands where img2img's would."""
        if not self.enable_hr:
            return None
        asked = {
            "scale": self.hr_scale,
            "strength": self.denoising_strength,
            "num_inference_steps": self.hr_second_pass_steps or None,
            "upscaler": upscaler(self.hr_upscaler or "Latent"),
        }
        return {name: value for name, value in asked.items() if value is not None}

    def _sampler(self) -> str | None:
        name = self.sampler_name or self.sampler_index
        spacing = "" if (self.scheduler or "").lower() in AUTOMATIC else f" {self.scheduler}"
        return f"{name}{spacing}" if name else None

    @staticmethod
    def theirs(ours: str) -> str:
        """The WebUI's name of one of our parameters."""
        return next((name for name, one in OURS.items() if one == ours), FURTHER.get(ours, ours))
