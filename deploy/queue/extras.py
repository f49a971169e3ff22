"""The body of the WebUI's `extra-single-image`, as far as it is done here."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from deploy.queue.webui import Off, linked, upscaler

NoUpscaler = Annotated[
    None, BeforeValidator(lambda value: None if value in (None, "", "None") else value)
]


class Extras(BaseModel):
    """Fields that are typed `Off` may be sent, but not switched on."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    upscaler_1: str = Field(min_length=1, max_length=200)
    upscaling_resize: float = 2.0
    image: str | None = Field(None, description="Base64, or an address as in image_link")
    image_link: str | None = None
    resize_mode: Literal[0, None] = None

    upscaler_2: NoUpscaler = None
    gfpgan_visibility: Off = None
    codeformer_visibility: Off = None
    # of what is refused above, or of the WebUI's page
    codeformer_weight: float | None = None
    extras_upscaler_2_visibility: float | None = None
    upscale_first: bool | None = None
    show_extras_results: bool | None = None
    upscaling_resize_w: int | None = None
    upscaling_resize_h: int | None = None
    upscaling_crop: bool | None = None

    mask: None = None
    model_override: None = None

    def links(self) -> list[str]:
        """The input images."""
        return [self.image] if self.image else linked(self.image_link)

    def values(self) -> dict[str, Any]:
        """In our names."""
        return {"upscaler": upscaler(self.upscaler_1), "scale": self.upscaling_resize}
