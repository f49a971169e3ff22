"""Measures the embedded model: asked for against drawn. `python -m models.embedded.evaluate`.

Held-out prompts are drawn with three samplers through diffusers' own pipeline. Colours are judged
by the nearest of the eight, shape and scene by a small classifier that is trained here, on drawn
pictures only, and whose own accuracy on unseen drawn pictures is reported beside. Writes
figures.json, samples.png and the table of README.md.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.embedded import card, draw
from models.embedded.canvas import Array
from models.embedded.draw import Subject
from models.embedded.judges import HELD_OUT, colours_of, judge, train_classifier

FOLDER = Path(__file__).parent
SAMPLERS: dict[str, tuple[str, dict[str, bool]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # as diffusers' pipelines run it
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
}
STEPS, GUIDANCE = 20, 4.0


def load(folder: Path) -> Any:
    import diffusers

    pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def use(pipeline: Any, sampler: str) -> None:
    import diffusers

    kind, options = SAMPLERS[sampler]
    pipeline.scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **options)


def prompts(count: int) -> tuple[list[Subject], list[str]]:
    """Held-out subjects and captions: one half shapes, one half scenes."""
    rng = random.Random(f"{HELD_OUT} prompts")
    subjects = [draw.subject(rng, 0.0) for _ in range(count - count // 3)]
    scenes = list(draw.SCENES)
    subjects += [Subject(scene=scenes[i % len(scenes)]) for i in range(count // 3)]
    return subjects, [draw.caption(subject, rng) for subject in subjects]


def draw_all(pipeline: Any, captions: list[str], **options: Any) -> Array:
    """(N, H, W, 3) in 0..1, image i from seed i, 16 at a time."""
    call = {
        "num_inference_steps": STEPS,
        "guidance_scale": GUIDANCE,
        "output_type": "np",
        **options,
    }
    parts = []
    for first in range(0, len(captions), 16):
        part = captions[first : first + 16]
        seeds = [torch.Generator().manual_seed(first + i) for i in range(len(part))]
        extra = {}
        if isinstance(call.get("negative_prompt"), str):
            extra["negative_prompt"] = [call["negative_prompt"]] * len(part)
        parts.append(pipeline(prompt=part, generator=seeds, **{**call, **extra}).images)
    return np.concatenate(parts)


# -- effects ---------------------------------------------------------------------------------------


def effects(pipeline: Any) -> dict[str, float]:
    """What negative prompt, guidance and img2img strength do."""
    import diffusers

    use(pipeline, "ddim")
    plain = draw_all(pipeline, ["a circle"] * 16)
    against = draw_all(pipeline, ["a circle"] * 16, negative_prompt="red")
    asked = ["a red circle on a blue background"] * 16
    wanted = np.array(draw.COLOURS["red"])
    subject = Subject("circle", "red", "blue")
    right = {
        scale: np.mean(
            [
                colours_of(p, subject)[0] == "red"
                for p in draw_all(pipeline, asked, guidance_scale=scale)
            ]
        )
        for scale in (1.0, GUIDANCE)
    }
    image_to_image = diffusers.StableDiffusionImg2ImgPipeline(**pipeline.components)
    image_to_image.set_progress_bar_config(disable=True)
    source = draw.render(Subject("square", "green", "white"), random.Random(0))
    picture = Image.fromarray((source * 255).astype(np.uint8))
    outcome = {}
    for strength in (0.2, 1.0):
        images = draw_all(image_to_image, asked, image=[picture] * 16, strength=strength)
        outcome[strength] = images
    kept = np.abs(outcome[0.2] - source).mean()
    changed = np.abs(outcome[1.0] - source).mean()
    follows = np.mean([colours_of(p, subject)[0] == "red" for p in outcome[1.0]])
    near = ((plain[:, 54:74, 54:74].mean((1, 2)) - wanted) ** 2).sum(-1).mean()
    far = ((against[:, 54:74, 54:74].mean((1, 2)) - wanted) ** 2).sum(-1).mean()
    return {
        "distance from red without a negative prompt": float(near),
        "distance from red with negative prompt red": float(far),
        "right colour at guidance 1": float(right[1.0]),
        f"right colour at guidance {GUIDANCE:g}": float(right[GUIDANCE]),
        "img2img change at strength 0.2": float(kept),
        "img2img change at strength 1.0": float(changed),
        "img2img follows the prompt at strength 1.0": float(follows),
    }


# -- report ----------------------------------------------------------------------------------------


def evaluate(folder: Path, count: int, only: list[str], unet_steps: int) -> dict[str, Any]:
    """All figures of the model card."""
    pipeline = load(folder)
    classifier, accuracy = train_classifier()
    subjects, captions = prompts(count)
    figures: dict[str, Any] = {
        "unet steps": unet_steps,
        "prompts": count,
        "steps": STEPS,
        "guidance": GUIDANCE,
        "classifier": accuracy,
        "samplers": {},
    }
    for sampler in only:
        use(pipeline, sampler)
        right = judge(draw_all(pipeline, captions), subjects, classifier)
        figures["samplers"][sampler] = {k: float(np.mean(v)) for k, v in right.items()}
        print(sampler, figures["samplers"][sampler], flush=True)
    use(pipeline, "dpmpp_2m")
    started = time.perf_counter()
    for _ in range(3):
        pipeline("View of a cyberpunk city", num_inference_steps=STEPS, guidance_scale=GUIDANCE)
    figures["seconds an image"] = (time.perf_counter() - started) / 3
    return figures


def samples(pipeline: Any, path: Path) -> None:
    """A grid of what newcomers will ask for."""
    use(pipeline, "dpmpp_2m")
    asked = [
        "View of a cyberpunk city",
        "snowy mountains",
        "a sailing boat on the sea",
        "sunset over the sea",
        "a forest",
        "starry sky",
        "desert with cactus",
        "city by day",
        "a red circle on a blue background",
        "a yellow star on a purple background",
        "a small green heart on a white background",
        "a large orange square on a black background",
        "a blue diamond on the left on a yellow background",
        "a white triangle on a red background",
        "a purple circle at the top on a green background",
        "a black star on an orange background",
    ]
    pictures = draw_all(pipeline, asked)
    grid = np.concatenate([np.concatenate(list(pictures[i : i + 8]), 1) for i in (0, 8)], 0)
    Image.fromarray((grid * 255).round().astype(np.uint8)).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--prompts", type=int, default=300)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--unet-steps", type=int, default=3600, help="told in the card")
    parser.add_argument("--no-effects", action="store_true", help="the table of samplers only")
    arguments = parser.parse_args()
    figures = evaluate(arguments.model, arguments.prompts, arguments.samplers, arguments.unet_steps)
    pipeline = load(arguments.model)
    samples(pipeline, arguments.model / "samples.png")
    if not arguments.no_effects:
        figures["effects"] = effects(pipeline)
    text = json.dumps(figures, indent=1)
    (arguments.model / "figures.json").write_text(text + "\n")
    card.write(arguments.model)
    print(text)


if __name__ == "__main__":
    main()
