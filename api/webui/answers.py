"""Results and progress in the WebUI's form."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from api.generation import Generation
from api.webui import controlnet
from api.webui.body import Asked
from api.webui.tickets import Drawn
from runnables import ticket as requests
from runnables.images import files, infotext
from runnables.samplers.names import resolve
from runnables.ticket import Result


def body(
    result: Result, asked: Asked, sent: dict[str, Any], generation: Generation
) -> dict[str, Any]:
    """The answer of txt2img and img2img; `info` is JSON in a string, as in the WebUI."""
    pictures = [picture(result, one, generation) for one in result.images]
    return {
        "images": pictures if asked.send_images else [],
        "parameters": echoed(asked, sent),
        "info": json.dumps(_info(result, generation)),
    }


def picture(result: Result, drawn: requests.Drawn, generation: Generation) -> str:
    """One image's file in base64."""
    return _base64(files.image_file(result, drawn, "png", generation.settings))


def interrupted(asked: Asked, sent: dict[str, Any]) -> dict[str, Any]:
    """The answer of a request that was stopped before it had images."""
    info = json.dumps({"interrupted": True, "infotexts": []})
    return {"images": [], "parameters": echoed(asked, sent), "info": info}


def echoed(asked: Asked, sent: dict[str, Any]) -> dict[str, Any]:
    """The request, without its images."""
    images_too = sent if asked.include_init_images else {"init_images": None, "mask": None}
    told = {**sent, **{name: images_too.get(name) for name in ("init_images", "mask")}}
    if "alwayson_scripts" in sent:
        told["alwayson_scripts"] = controlnet.without_images(asked.alwayson_scripts)
    return told


def progress(drawn: Sequence[Drawn], preview: Image | None) -> dict[str, Any]:
    """How far the first of these is; all zero where there is none."""
    now = drawn[0].ticket.progress if drawn else None
    return {
        "progress": drawn[0].share if drawn else 0.0,
        "eta_relative": (now.eta_s or 0.0) if now else 0.0,
        "state": {
            "skipped": False,
            "interrupted": bool(drawn and drawn[0].interrupted),
            "stopping_generation": False,
            "job": drawn[0].ticket.parameters.task if drawn else "",
            "job_count": len(drawn),
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": now.step if now else 0,
            "sampling_steps": now.steps if now else 0,
        },
        "current_image": _base64(_png(preview)) if preview else None,
        "textinfo": None,
    }


def _info(result: Result, generation: Generation) -> dict[str, Any]:
    told = result.parameters.model_dump()
    seeds = [drawn.seed for drawn in result.images]
    count = len(seeds)
    described = [infotext.write({**told, "seed": seed}) for seed in seeds]
    first = result.images[0].image
    return {
        "prompt": told["prompt"],
        "all_prompts": [told["prompt"]] * count,
        "negative_prompt": told["negative_prompt"],
        "all_negative_prompts": [told["negative_prompt"]] * count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * count,
        "subseed_strength": 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": resolve(told["scheduler"]).label,
        "cfg_scale": told["guidance_scale"],
        "steps": told["num_inference_steps"],
        "batch_size": count,
        "denoising_strength": told.get("strength") or (told.get("hires") or {}).get("strength"),
        "sd_model_name": told["model"],
        "infotexts": described,
        "index_of_first_image": 0,
        "finish_reasons": [drawn.finish_reason for drawn in result.images],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _png(image: Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
