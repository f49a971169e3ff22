"""The body of the WebUI's txt2img and img2img."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, field_validator

from api.http.validation import NullIsAbsent
from runnables.parameters import MAX_IMAGES, MAX_PROMPT

MAX_TEXT = 2 * MAX_PROMPT  # characters with tags; without them prompts have the usual limit


class GenerationBody(NullIsAbsent):
    """The fields that mean something here, and those that are refused where they are set."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: str = Field("", max_length=MAX_TEXT)
    negative_prompt: str = Field("", max_length=MAX_TEXT)
    seed: int = Field(-1, lt=2**64 - MAX_IMAGES**2)
    steps: int | None = None
    cfg_scale: float | None = None
    width: int | None = None
    height: int | None = None
    batch_size: int = Field(1, ge=1, le=MAX_IMAGES)
    n_iter: int = Field(1, ge=1, le=MAX_IMAGES)
    sampler_name: str | None = Field(None, max_length=100)
    sampler_index: str | None = Field(None, max_length=100)
    scheduler: str | None = Field(None, max_length=100)
    denoising_strength: float = 0.75
    init_images: list[str] = Field(default=[], max_length=1)
    mask: str | None = None
    inpainting_mask_invert: int = Field(0, ge=0, le=1)
    resize_mode: int = 0
    include_init_images: bool = False
    send_images: bool = True
    override_settings: dict[str, Any] = Field(default_factory=dict)
    alwayson_scripts: dict[str, Any] = Field(default_factory=dict)
    enable_hr: bool = False
    hr_scale: float = 2.0
    hr_upscaler: str = "Latent"
    hr_second_pass_steps: int = 0
    hr_resize_x: int = 0
    hr_resize_y: int = 0
    # only to be refused where they are set
    hr_checkpoint_name: str = ""
    hr_sampler_name: str = ""
    hr_scheduler: str = ""
    hr_prompt: str = ""
    hr_negative_prompt: str = ""
    firstphase_width: int = 0
    firstphase_height: int = 0
    styles: list[str] = Field(default_factory=list)
    refiner_checkpoint: str = ""
    restore_faces: bool = False
    tiling: bool = False
    script_name: str | None = None
    subseed_strength: float = 0
    seed_resize_from_h: int = 0
    seed_resize_from_w: int = 0

    @field_validator("override_settings", "alwayson_scripts", mode="before")
    @classmethod
    def _empty_list(cls, sent: Any) -> Any:
        """Take an empty list as an empty object, which is what PHP writes for it."""
        return {} if sent == [] else sent

    @property
    def override_model(self) -> Any:
        """The model that the options name, or None."""
        return self.override_settings.get("sd_model_checkpoint")
