"""The tools: their names, what they say about themselves, and the schemas of their arguments.

The arguments of a task are those of its endpoint, from the same models; images come as texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.http import forms
from api.http.operations import Schema
from runnables.parameters import MODELS, Task

#: name -> (task, what it does)
TASKS: dict[str, tuple[Task, str]] = {
    "generate": ("txt2img", "Generate images from a text."),
    "edit": ("img2img", "Change an image as a text says."),
    "inpaint": ("inpaint", "Repaint the white area of a mask, and keep the rest of an image."),
    "upscale": ("upscale", "Enlarge an image as it is."),
}
IMAGE = (
    "base64, a data: URL, the link of an image that this service made, or an https URL where the "
    "service fetches images"
)
FILES = {"img": f"The image: {IMAGE}.", "mask": "The mask, white where it is repainted; as img."}
#: what every tool that ends with images takes
SHOWN: Schema = {
    "type": "string",
    "enum": ["content", "links"],
    "default": "content",
    "description": "content: the images and their links; links: only their links.",
}
WAIT: Schema = {
    "type": "boolean",
    "default": True,
    "description": "Wait for the images. false: return the job at once; follow_job waits for it.",
}
ID: Schema = {"type": "string", "description": "The id of a job."}
#: arguments that are no parameters of the task
EXTRA = {"img": None, "mask": None, "show": "content", "wait": True}
#: parameters that need what a tool does not carry
LEFT_OUT = {"controlnets", "output_format"}


def schemas() -> dict[str, tuple[str, Schema]]:
    """Return name -> (description, JSON schema of the arguments)."""
    job: Schema = {"type": "object", "required": ["id"]}
    return {
        **{name: (text, _of_task(task)) for name, (task, text) in TASKS.items()},
        "list_models": (
            "List the models that may be named, the default first.",
            {"type": "object", "properties": {}},
        ),
        "follow_job": (
            "Wait until a job has ended, and return its images.",
            {**job, "properties": {"id": ID, "show": SHOWN}},
        ),
        "cancel_job": ("Cancel a job.", {**job, "properties": {"id": ID}}),
    }


def divided(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of a task, and what comes beside them with its defaults."""
    parameters = {name: value for name, value in arguments.items() if name not in EXTRA}
    return parameters, {name: arguments.get(name, value) for name, value in EXTRA.items()}


def _of_task(task: Task) -> Schema:
    schema = MODELS[task].model_json_schema()
    files = {
        name: {"type": "string", "description": FILES[name]}
        for name in forms.files_of(MODELS[task])
    }
    kept = {name: one for name, one in schema["properties"].items() if name not in LEFT_OUT}
    properties = {**files, **kept, "show": SHOWN, "wait": WAIT}
    required = [*files, *schema.get("required", [])]
    parts = schema.get("$defs", {})  # what the properties refer to
    return {"type": "object", "properties": properties, "required": required, "$defs": parts}
