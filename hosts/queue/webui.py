"""The content of a task: bodies of the WebUI's API, read as our HTTP service reads them.

Where that ignores what it does not know, as the WebUI does, a task is refused: nobody sees a
warning hours later. What is only about the WebUI itself (saving, sending) has no effect.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, Field, field_validator, model_validator

from api.http.validation import NullIsAbsent
from api.webui import controlnet, enlarge, translate
from api.webui.body import GenerationBody
from api.webui.controlnet import Unit
from runnables.parameters import DRAWINGS, SIZE_MULTIPLE, AnyParameters, Task

#: about the WebUI, or of what is refused where it is switched on
WITHOUT_EFFECT = {
    "save_images",
    "do_not_save_samples",
    "do_not_save_grid",
    "override_settings_restore_afterwards",
    "force_task_id",
    "infotext",
    "comments",
    "script_args",
    "subseed",
    "seed_enable_extras",
    "refiner_switch_at",
    "image_cfg_scale",
    "eta",
    "s_min_uncond",
    "s_churn",
    "s_tmax",
    "s_tmin",
    "s_noise",
    "codeformer_weight",
    "upscale_first",
    "show_extras_results",
    "upscaling_resize_w",
    "upscaling_resize_h",
    "upscaling_crop",
}
OPTIONS = ("sd_model_checkpoint", "CLIP_stop_at_last_layers")


#: a comma between two links; one within a data URL, before its content, is none
COMMA = re.compile(r"(?<!;base64),")


def linked(links: str | None) -> list[str]:
    """Return the input images that `image_link` names."""
    return [link.strip() for link in COMMA.split(links or "") if link.strip()]


class Content(NullIsAbsent, ABC):
    """The fields that the content of every task has."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    image_link: str | None = Field(None, description="comma-separated URLs or s3:// addresses")
    mask: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _drop(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {name: one for name, one in value.items() if name not in WITHOUT_EFFECT}

    @property
    def model_override(self) -> Any:
        """The model that it names."""
        return None

    @property
    def units(self) -> list[Unit]:
        """Return the task's ControlNets."""
        return []

    def links(self) -> list[str]:
        """Return the task's input images: base64, or addresses."""
        return linked(self.image_link)

    @property
    def links_field(self) -> str:
        """The name of the field that they are in."""
        return "image_link"

    @abstractmethod
    def parameters(
        self, kind: Task, embeddings: Sequence[str], native: Mapping[str, Any]
    ) -> AnyParameters:
        """Return our own parameters. Raises InvalidInput naming the field."""


class Generated(GenerationBody, Content):
    """`txt2img` and `img2img`."""

    model_config = Content.model_config

    @field_validator("width", "height")
    @classmethod
    def _check_size(cls, side: int | None) -> int | None:
        if side is not None and side % SIZE_MULTIPLE:
            nearest = max(SIZE_MULTIPLE, round(side / SIZE_MULTIPLE) * SIZE_MULTIPLE)
            raise ValueError(f"not a multiple of {SIZE_MULTIPLE}; the nearest is {nearest}")
        return side

    @field_validator("override_settings")
    @classmethod
    def _check_options(cls, options: dict[str, Any]) -> dict[str, Any]:
        for name in options:
            if name not in OPTIONS:
                raise ValueError(f"{name} is not supported; known: {', '.join(OPTIONS)}")
        return options

    @property
    def model_override(self) -> Any:
        return self.override_settings.get("sd_model_checkpoint")

    @property
    def units(self) -> list[Unit]:
        return controlnet.units(self.alwayson_scripts)

    def links(self) -> list[str]:
        return self.init_images or super().links()

    @property
    def links_field(self) -> str:
        return "init_images" if self.init_images else super().links_field

    def parameters(
        self, kind: Task, embeddings: Sequence[str], native: Mapping[str, Any]
    ) -> AnyParameters:
        return translate.parameters(self, DRAWINGS[kind], embeddings, native)


class Enlarged(enlarge.Extras, Content):
    """`extra-single-image` and `extra-batch-images`."""

    model_config = Content.model_config

    mask: None = None
    image: str | None = None
    imageList: list[enlarge.Listed] = Field(default_factory=list)

    def links(self) -> list[str]:
        listed = [one.data for one in self.imageList]
        return listed or ([self.image] if self.image else super().links())

    @property
    def links_field(self) -> str:
        return "imageList" if self.imageList else "image" if self.image else super().links_field

    def parameters(
        self, kind: Task, embeddings: Sequence[str], native: Mapping[str, Any]
    ) -> AnyParameters:
        return enlarge.parameters(self)
