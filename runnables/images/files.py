"""Results become image files, with the information that the operator's policy allows, signed."""

from __future__ import annotations

import base64
import json
from typing import Any

from runnables.images import codec, provenance, watermark
from runnables.parameters import AnyParameters, OutputFormat, Parameters
from runnables.settings import Settings
from runnables.ticket import GeneratedImage, Result

#: parameters that are not about the image
NOT_ABOUT_IMAGE = {"priority", "deadline_s", "output_format", "safety_check"}


def encode(result: Result, chosen: OutputFormat, settings: Settings) -> bytes:
    """Return the only image as its file, or all images as JSON."""
    if chosen == "json":
        return json.dumps(_json_body(result, settings)).encode()
    return image_file(result, result.images[0], chosen, settings)


def image_file(
    result: Result, image: GeneratedImage, kind: codec.Format, settings: Settings
) -> bytes:
    """Return one image's file: marked where a watermark is set, signed where a certificate is."""
    picture = watermark.mark(image.image, settings.watermark) if settings.watermark else image.image
    data = codec.encode(picture, kind, _described(result, image, settings))
    generated = isinstance(result.parameters, Parameters)
    return provenance.sign(data, kind, settings, generated=generated)


def _described(result: Result, image: GeneratedImage, settings: Settings) -> dict[str, Any] | None:
    """Return what is written into an image's file, as the operator's policy says."""
    if settings.metadata == "none":
        return None
    if settings.metadata == "minimal":
        generator = {"generator": "stable-diffusion-service"}
        return {**generator, **_made_by(result.parameters, image)}
    return {**_parameters(result), **_made_by(result.parameters, image)}


def _made_by(parameters: AnyParameters, image: GeneratedImage) -> dict[str, Any]:
    """Return seed and model; nothing where the image was only enlarged."""
    if not isinstance(parameters, Parameters):
        return {}
    return {"seed": image.seed, "model": parameters.model}


def _parameters(result: Result) -> dict[str, Any]:
    return result.parameters.model_dump(
        exclude=NOT_ABOUT_IMAGE | {"num_images_per_prompt"}, exclude_none=True
    )


def _json_body(result: Result, settings: Settings) -> dict[str, Any]:
    files = [image_file(result, image, "png", settings) for image in result.images]
    return {
        "images": [
            {
                "image": base64.b64encode(data).decode(),
                "seed": image.seed,
                "finish_reason": image.finish_reason,
                "hint": image.hint,
            }
            for image, data in zip(result.images, files, strict=True)
        ],
        "parameters": _parameters(result),
        "timings": dict(result.timings),
    }
