"""The page's fields, and how the service's own limits and defaults fill them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import gradio as gr

from ui.client import Catalog
from ui.form import FIELDS, ONCE

OWN_SAMPLER = ("The model's own", "")
Controls = dict[str, Any]


def prompts() -> Controls:
    """Return the two texts."""
    return {
        "prompt": gr.Textbox(
            label="Prompt",
            placeholder="View of a cyberpunk city",
            lines=2,
            max_lines=8,
            elem_id="prompt",
            autofocus=True,
        ),
        "negative_prompt": gr.Textbox(
            label="Negative prompt", placeholder="What to keep out", lines=1, max_lines=4
        ),
    }


def settings() -> Controls:
    """Return all other fields but the seed, in the page's order."""
    controls: Controls = {"model": gr.Dropdown(label="Model", visible=False)}
    with gr.Row():
        controls["scheduler"] = gr.Dropdown(
            [OWN_SAMPLER], value="", label="Sampler", allow_custom_value=True, elem_id="sampler"
        )
        controls["num_images_per_prompt"] = gr.Slider(
            1, 8, value=1, step=1, label="Images", elem_id="images"
        )
    with gr.Row():
        controls["num_inference_steps"] = gr.Slider(
            1, 150, value=20, step=1, label="Steps", elem_id="steps"
        )
        controls["guidance_scale"] = gr.Slider(
            0, 50, value=7.5, step=0.1, label="Guidance", elem_id="guidance"
        )
    with gr.Row():
        controls["width"] = _number("Width", "width")
        controls["height"] = _number("Height", "height")
    controls["strength"] = gr.Slider(
        0.05, 1, value=0.8, step=0.05, label="Strength: how much to change", visible=False
    )
    controls["hires"] = gr.Slider(
        ONCE, 4, value=ONCE, step=0.25, label="Second pass: times larger (1: none)", elem_id="hires"
    )
    return controls


def seed() -> Any:
    """Return the field of the seed; an empty one is a new seed each time."""
    return _number("Seed", "seed", "random")


def _number(label: str, name: str, placeholder: str = "auto") -> Any:
    """Return a field for a whole number that may be empty, which Gradio's own cannot be."""
    return gr.Textbox(
        label=label,
        placeholder=placeholder,
        max_lines=1,
        elem_id=name,
        min_width=100,
    )


def in_order(controls: Mapping[str, Any]) -> list[Any]:
    """Return the components in the order of FIELDS."""
    return [controls[name] for name in FIELDS]


def fitted(catalog: Catalog) -> list[Any]:
    """Return updates of all fields, in the order of FIELDS: this service's limits and defaults."""
    model = catalog.models[0]
    defaults = model.get("defaults", {})
    updates: dict[str, Any] = {name: gr.update() for name in FIELDS}
    for name in ("num_inference_steps", "guidance_scale", "num_images_per_prompt"):
        limits = catalog.limits.get(name, {})
        value = defaults.get(name, limits.get("default"))
        updates[name] = gr.update(**_bounds(limits), value=1 if value is None else value)
    updates["strength"] = gr.update(**_bounds(catalog.limits.get("strength", {})))
    for name in ("width", "height"):
        updates[name] = gr.update(placeholder=f"auto ({model[name]})" if name in model else "auto")
    updates["scheduler"] = gr.update(choices=[OWN_SAMPLER, *_samplers(catalog.samplers)])
    updates["model"] = _models([entry["name"] for entry in catalog.models])
    return [updates[name] for name in FIELDS]


def _bounds(limits: Mapping[str, Any]) -> dict[str, Any]:
    names = {"minimum": "minimum", "maximum": "maximum"}
    return {names[name]: limits[name] for name in names if name in limits}


def _samplers(samplers: Iterable[Mapping[str, Any]]) -> list[tuple[str, str]]:
    return [(str(entry.get("label") or entry["name"]), str(entry["name"])) for entry in samplers]


def _models(names: list[str]) -> Any:
    """Return a choice of models; it is visible only where there are several."""
    several = len(names) > 1
    return gr.update(choices=names, value=names[0] if several else None, visible=several)
