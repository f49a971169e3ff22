"""Measures the embedded model: `python -m models.training.evaluate`.

Images of held-out prompts are generated with three samplers through diffusers' own pipeline.
Colours are judged by the nearest of the eight; things, shapes and scenes by a small classifier that
is trained here, on composed pictures only, and whose own accuracy on unseen compositions is
reported beside. Writes figures.json, samples.png and the model card.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from models.training import card, draw
from models.training.bank import bank, compose
from models.training.canvas import Array
from models.training.concepts import concepts
from models.training.everyday import EVERYDAY
from models.training.judges import (
    HELD_OUT,
    Classifier,
    accuracy,
    colours_of,
    judge,
    train_classifier,
)
from models.training.subject import Subject

FOLDER = Path(__file__).parents[1] / "embedded"
SAMPLERS: dict[str, tuple[str, dict[str, bool]]] = {
    "ddim": ("DDIMScheduler", {"clip_sample": False}),  # as diffusers' pipelines run it
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "euler_a": ("EulerAncestralDiscreteScheduler", {}),
}
STEPS, GUIDANCE = 20, 5.0
PICTURES, CLASSIFIER_STEPS = 48_000, 3200


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
    """Held-out subjects and captions: three fifths things, one fifth shapes, one fifth scenes."""
    rng = random.Random(f"{HELD_OUT} prompts")
    few = count // 5
    names = rng.sample(list(concepts()), min(count - 2 * few, len(concepts())))
    subjects = [replace(draw.thing(rng, name), other="") for name in names]
    subjects += [draw.subject(rng, 0.0) for _ in range(few)]
    scenes = list(draw.SCENES)
    subjects += [Subject(scene=scenes[i % len(scenes)]) for i in range(few)]
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
    """Return what negative prompt, guidance and img2img strength do."""
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


def evaluate(folder: Path, work: Path, count: int, only: list[str]) -> dict[str, Any]:
    """All figures of the model card."""
    pipeline = load(folder)
    classifier, figures = _classifier(work)
    subjects, captions = prompts(count)
    figures |= {
        "prompts": len(captions),
        "steps": STEPS,
        "guidance": GUIDANCE,
        "psnr": fidelity(pipeline, work),
        "samplers": {},
    }
    for sampler in only:
        use(pipeline, sampler)
        right = judge(draw_all(pipeline, captions), subjects, classifier)
        figures["samplers"][sampler] = {k: float(np.mean(v)) for k, v in right.items()}
        print(sampler, figures["samplers"][sampler], flush=True)
    figures["by name"] = by_name(pipeline, classifier)
    figures["seconds an image"] = _seconds(pipeline)
    return figures


def by_name(pipeline: Any, classifier: Classifier) -> dict[str, dict[str, float]]:
    """Return how often "a NAME" alone gives the thing: over all things, over common ones."""
    use(pipeline, "dpmpp_2m")
    known = concepts()
    pictures = draw_all(pipeline, [f"a {name}" for name in known])
    right = judge(pictures, [Subject(thing=name) for name in known], classifier)
    common = np.array([one.common for one in known.values()])
    return {
        kind: {name: float(np.mean(np.array(values)[chosen])) for name, values in right.items()}
        | {"things": int(chosen.sum())}
        for kind, chosen in (("common", common), ("all", np.ones_like(common)))
    }


def _classifier(work: Path) -> tuple[Classifier, dict[str, Any]]:
    """The classifier, trained if it is not yet, and its accuracy on unseen compositions."""
    pictures, subjects = bank(work, PICTURES, 0)
    classifier = train_classifier(pictures, subjects, work, CLASSIFIER_STEPS)
    unseen, shown = compose(work, f"{HELD_OUT} classifier", 0)
    return classifier, {"classifier": accuracy(unseen, shown, classifier)}


@torch.inference_mode()
def fidelity(pipeline: Any, work: Path) -> float:
    """Mean PSNR in dB of the autoencoder on 256 compositions that it has not seen."""
    pixels, _ = compose(work, f"{HELD_OUT} autoencoder", 0)
    found = []
    for first in range(0, 256, 16):
        wanted = torch.from_numpy(pixels[first : first + 16]).permute(0, 3, 1, 2) / 127.5 - 1
        latents = pipeline.vae.encode(wanted).latent_dist.mean
        decoded = pipeline.vae.decode(latents).sample.clamp(-1, 1)
        error = ((decoded - wanted) / 2).square().mean(dim=(1, 2, 3))
        found.append(-10 * error.log10())
    return float(torch.cat(found).mean())


def _seconds(pipeline: Any) -> float:
    """The shortest of five images: other work on the machine does not make it longer."""
    use(pipeline, "dpmpp_2m")
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        pipeline("View of a cyberpunk city", num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        taken.append(time.perf_counter() - started)
    return min(taken)


def samples(pipeline: Any, path: Path) -> None:
    """The contact sheet: 48 prompts that a newcomer may type."""
    use(pipeline, "dpmpp_2m")
    pictures = draw_all(pipeline, EVERYDAY)
    rows = [np.concatenate(list(pictures[i : i + 8]), 1) for i in range(0, len(EVERYDAY), 8)]
    grid = np.concatenate(rows, 0)
    Image.fromarray((grid * 255).round().astype(np.uint8)).save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--model", type=Path, default=FOLDER)
    parser.add_argument("--work", type=Path, default=Path("output.training"), help="checkpoints")
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--samplers", nargs="*", default=list(SAMPLERS), choices=list(SAMPLERS))
    parser.add_argument("--no-effects", action="store_true", help="the table of samplers only")
    arguments = parser.parse_args()
    figures = evaluate(arguments.model, arguments.work, arguments.prompts, arguments.samplers)
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
