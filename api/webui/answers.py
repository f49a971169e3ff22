"""Results and progress in the WebUI's form."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

from PIL.Image import Image

from api.generation import Generation
from api.webui import controlnet
from api.webui.body import GenerationBody
from api.webui.tickets import Running
from runnables.images import codec, files, infotext
from runnables.ticket import GeneratedImage, Result


def images(
    result: Result, body: GenerationBody, sent: dict[str, Any], generation: Generation
) -> dict[str, Any]:
    """Return the answer of txt2img and img2img; `info` is JSON in a string, as in the WebUI."""
    every = [file(result, one, generation) for one in result.images]
    return {
        "images": every if body.send_images else [],
        "parameters": echoed(body, sent),
        "info": json.dumps(_info(result, generation)),
    }


def file(result: Result, image: GeneratedImage, generation: Generation) -> str:
    """Return one image's file in base64."""
    return _base64(files.image_file(result, image, "png", generation.settings))


def interrupted(body: GenerationBody, sent: dict[str, Any]) -> dict[str, Any]:
    """Return the answer of a request that was stopped before it had images."""
    info = json.dumps({"interrupted": True, "infotexts": []})
    return {"images": [], "parameters": echoed(body, sent), "info": info}


def echoed(body: GenerationBody, sent: dict[str, Any]) -> dict[str, Any]:
    """Return the request, without its images."""
    images_too = sent if body.include_init_images else {"init_images": None, "mask": None}
    echo = {**sent, **{name: images_too.get(name) for name in ("init_images", "mask")}}
    if "alwayson_scripts" in sent:
        echo["alwayson_scripts"] = controlnet.without_images(body.alwayson_scripts)
    return echo


def progress(running: Sequence[Running], preview: Image | None) -> dict[str, Any]:
    """Return how far the first of these is; all is zero where there is none."""
    first = running[0] if running else None
    now = first.ticket.progress if first else None
    return {
        "progress": first.share if first else 0.0,
        "eta_relative": (now.eta_s or 0.0) if now else 0.0,
        "state": {
            "skipped": False,
            "interrupted": bool(first and first.interrupted),
            "stopping_generation": False,
            "job": first.ticket.parameters.task if first else "",
            "job_count": len(running),
            "job_timestamp": "0",
            "job_no": 0,
            "sampling_step": now.step if now else 0,
            "sampling_steps": now.steps if now else 0,
        },
        "current_image": _base64(codec.encode(preview, "png")) if preview else None,
        "textinfo": None,
    }


def _info(result: Result, generation: Generation) -> dict[str, Any]:
    parameters = result.parameters.model_dump()
    seeds = [image.seed for image in result.images]
    count = len(seeds)
    described = [infotext.write({**parameters, "seed": seed}) for seed in seeds]
    first = result.images[0].image
    return {
        "prompt": parameters["prompt"],
        "all_prompts": [parameters["prompt"]] * count,
        "negative_prompt": parameters["negative_prompt"],
        "all_negative_prompts": [parameters["negative_prompt"]] * count,
        "seed": seeds[0],
        "all_seeds": seeds,
        "subseed": -1,
        "all_subseeds": [-1] * count,
        "subseed_strength": 0,
        "width": first.width,
        "height": first.height,
        "sampler_name": infotext.parse(described[0])["Sampler"],
        "cfg_scale": parameters["guidance_scale"],
        "steps": parameters["num_inference_steps"],
        "batch_size": count,
        "denoising_strength": parameters.get("strength")
        or (parameters.get("hires") or {}).get("strength"),
        "sd_model_name": parameters["model"],
        "clip_skip": parameters["clip_skip"] + 1,
        "infotexts": described,
        "index_of_first_image": 0,
        "finish_reasons": [image.finish_reason for image in result.images],
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
