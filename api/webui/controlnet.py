"""The units of the WebUI's ControlNet extension: `alwayson_scripts.controlnet.args`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from api.http.validation import validated
from api.webui import catalog
from runnables.errors import InvalidInput

SCRIPT = "controlnet"
LOC = ("alwayson_scripts", SCRIPT, "args")
#: the extension's names of `resize_mode`, beside its numbers
RESIZES = {
    "just resize": 0,
    "crop and resize": 1,
    "scale to fit (inner fit)": 1,
    "inner fit (scale to fit)": 1,
    "resize and fill": 2,
    "envelope (outer fit)": 2,
    "outer fit (scale to fit)": 2,
}
IMAGES = ("image", "input_image", "image_link", "mask")


class Unit(BaseModel):
    """A unit: the fields that mean something here, not those of preprocessors."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())

    enabled: bool = True
    model: str = ""
    module: str | None = None
    image: str | None = None
    input_image: str | None = None
    image_link: str | None = None
    mask: str | None = None
    weight: float = 1.0
    guidance_start: float = 0.0
    guidance_end: float = 1.0
    resize_mode: int | str = 1
    control_mode: int | str = 0

    def native(self) -> dict[str, Any]:
        """Return the unit as one of our `controlnets`, without the hash that clients show."""
        return {
            "name": catalog.without_hash(self.model),
            "weight": self.weight,
            "start": self.guidance_start,
            "end": self.guidance_end,
        }

    @property
    def acts(self) -> bool:
        """True when the unit is on; one without model, preprocessor and image is only a default."""
        named = self.model not in ("", "None") or (self.module or "none").lower() != "none"
        return self.enabled and (named or bool(self.source()))

    def source(self) -> str | None:
        """Return its image: base64, or an address."""
        return self.image or self.input_image or self.image_link

    @property
    def fit(self) -> int | None:
        """The number of `resize_mode`; None where there is no such mode."""
        mode = self.resize_mode
        number = RESIZES.get(mode.lower()) if isinstance(mode, str) else mode
        return number if number in RESIZES.values() else None


def is_ours(script: str) -> bool:
    """Return whether a script is ControlNet's: clients write the name in either case."""
    return script.lower() == SCRIPT


def units(scripts: dict[str, Any]) -> list[Unit]:
    """Return the units that are switched on.

    Raises:
        InvalidInput: A field is wrong, or requests what is not here; it is named.
    """
    sent = [unit for name, script in scripts.items() if is_ours(name) for unit in _args(script)]
    every = [validated(Unit, _without_nulls(one), (*LOC, i)) for i, one in enumerate(sent)]
    for i, unit in enumerate(every):
        if unit.acts:
            _check(unit, i)
    return [unit for unit in every if unit.acts]


def _args(script: Any) -> list[Any]:
    """Return the units of one script: clients send it under both spellings of its name."""
    sent = script.get("args") or [] if isinstance(script, dict) else script or []
    if not isinstance(sent, list):
        raise InvalidInput("args must be a list of units", loc=LOC)
    return sent


def _without_nulls(sent: Any) -> Any:
    """Drop nulls, which mean "not sent" in the WebUI. `False` is a unit that is off."""
    if sent is False:
        return {"enabled": False}
    if not isinstance(sent, dict):
        return sent
    return {name: value for name, value in sent.items() if value is not None}


def _check(unit: Unit, index: int) -> None:
    refused = {
        "module": (unit.module or "none").lower() != "none"
        and f"the preprocessor {unit.module} is not available: send its output, with module none",
        "control_mode": str(unit.control_mode).lower() not in ("0", "balanced")
        and "control_mode must be Balanced (0)",
        "mask": bool(unit.mask) and "a unit's mask is not available",
        "resize_mode": unit.fit is None and f"resize_mode must be one of {', '.join(RESIZES)}",
    }
    for field, why in refused.items():
        if why:
            raise InvalidInput(why, loc=(*LOC, index, field))


def without_images(scripts: dict[str, Any]) -> dict[str, Any]:
    """Return the scripts as they were sent, but without the images of units."""
    return {
        name: {**script, "args": [_bare(unit) for unit in script.get("args") or []]}
        if is_ours(name) and isinstance(script, dict)
        else script
        for name, script in scripts.items()
    }


def _bare(unit: Any) -> Any:
    if not isinstance(unit, dict):
        return unit
    return {name: value for name, value in unit.items() if name not in IMAGES}


def model_list(controlnets: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the ControlNets that units may name."""
    return {"model_list": [one["name"] for one in controlnets]}


#: no preprocessors
MODULES: dict[str, Any] = {"module_list": ["none"], "module_detail": {"none": {"sliders": []}}}
