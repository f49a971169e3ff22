"""The page's fields as a request's parameters, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ui.client import ServiceError

#: in the page's order; each is a parameter of the service
FIELDS = (
    "prompt",
    "negative_prompt",
    "model",
    "scheduler",
    "num_inference_steps",
    "guidance_scale",
    "width",
    "height",
    "strength",
    "hires",
    "num_images_per_prompt",
    "seed",
)
WHOLE = {"num_inference_steps", "width", "height", "num_images_per_prompt", "seed"}
#: whole numbers that may be left empty: text fields of the page
TEXTS = ("width", "height", "seed")
#: parameters that not every task takes
NOT_OF = {"strength": {"txt2img"}, "hires": {"inpaint"}}
ONCE = 1.0  # times the size: no second pass
#: the second pass that a chosen size stands for
HIRES = {"strength": 0.7, "upscaler": "latent"}
#: what the service reports about an image, and the visitor does not choose
NOT_CHOSEN = {"output_format", "priority", "deadline_s", "safety_check", "task"}


def to_parameters(task: str, values: Sequence[Any], more: str) -> dict[str, Any]:
    """Return what is filled in, for a request of this task.

    Args:
        values: The values of FIELDS, in their order; None and "" are left out.
        more: A JSON object with further parameters, or "".

    Raises:
        ServiceError: `more` is no JSON object.
    """
    fields = dict(zip(FIELDS, values, strict=True))
    fields["hires"] = _second_pass(fields["hires"])
    fields = {name: value for name, value in fields.items() if task not in NOT_OF.get(name, ())}
    filled = {name: _number(name, value) for name, value in fields.items() if _is_filled(value)}
    return {**filled, **_parse(more), "output_format": "png"}


def to_values(parameters: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the fields' values for these parameters (None where there is none), the rest as JSON.

    Fields that the page cannot leave empty (the number of images) keep their own default.
    """
    fields = {name: parameters.get(name) for name in FIELDS}
    fields["hires"] = scale = _scale(parameters)
    fields |= {name: str(fields[name]) for name in TEXTS if fields[name] is not None}
    rest = {
        name: value
        for name, value in parameters.items()
        if (name not in fields or (name == "hires" and scale == ONCE))
        and name not in NOT_CHOSEN
        and value is not None
    }
    return fields, json.dumps(rest) if rest else ""


def summary(parameters: Mapping[str, Any]) -> str:
    """Return one line about an image."""
    parts = [
        f"seed {parameters.get('seed')}",
        parameters.get("scheduler"),
        f"{parameters.get('num_inference_steps')} steps",
        f"guidance {parameters.get('guidance_scale')}",
    ]
    return " · ".join(str(part) for part in parts if part and "None" not in str(part))


def _second_pass(scale: float | None) -> dict[str, float] | None:
    return {"scale": scale} if scale and scale > ONCE else None


def _scale(parameters: Mapping[str, Any]) -> float:
    """Return how many times larger the second pass is, where the page can request this one."""
    wanted = parameters.get("hires") or {}
    steps = parameters.get("num_inference_steps")
    usual = {**HIRES, "num_inference_steps": steps, "scale": wanted.get("scale")}
    return float(wanted["scale"]) if {**usual, **wanted} == usual and wanted else ONCE


def _is_filled(value: Any) -> bool:
    return value is not None and value != ""


def _number(name: str, value: Any) -> Any:
    """Return a whole number; other text stays as it is, and the service says what is wrong."""
    try:
        return int(value) if name in WHOLE else value
    except ValueError:
        return value


def _parse(more: str) -> dict[str, Any]:
    try:
        content = json.loads(more or "{}")
    except ValueError as error:
        raise ServiceError(f"not JSON: {error}", field="further parameters") from error
    if not isinstance(content, dict):
        raise ServiceError("must be a JSON object", field="further parameters")
    return content
