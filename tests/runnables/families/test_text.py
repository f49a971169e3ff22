"""Weights, long prompts and clip skip give the embeddings of compel and diffusers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from compel.prompt_parser import PromptParser

from runnables.errors import InvalidInput
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from tests.runnables.engine import reference

Start = Callable[..., StableDiffusionRunnable]
TinyModel = Callable[[str], Path]
LONG = "a red cat, " * 12 + "sitting on a green mat. " * 3  # characters are tokens here
WEIGHTED = "a (red)1.6 cat++ and a (green dog)0.4, (on (a mat)1.2)0.9"


def wanted(**options: Any) -> TextToImage:
    arguments = {"prompt": "a cat", "num_inference_steps": 4, "guidance_scale": 5.0, "seed": 3}
    return TextToImage(**(arguments | options))


def expected(folder: Path, one: TextToImage) -> np.ndarray:
    """Return the image of diffusers' pipeline with compel's embeddings."""
    pipeline = reference.pipeline(folder, TextToImage)
    call = {
        "num_inference_steps": one.num_inference_steps,
        "guidance_scale": one.guidance_scale,
        "generator": torch.Generator().manual_seed(one.seed or 0),
        "output_type": "np",
    }
    pixels = pipeline(**call, **_embeddings(pipeline, one)).images[0]
    return (pixels * 255).round().astype(int)


def _embeddings(pipeline: Any, one: TextToImage) -> dict[str, torch.Tensor]:
    from compel import CompelForSD, CompelForSDXL

    if hasattr(pipeline, "text_encoder_2"):
        both = CompelForSDXL(pipeline)(one.prompt, negative_prompt=one.negative_prompt)
        return {
            "prompt_embeds": both.embeds,
            "pooled_prompt_embeds": both.pooled_embeds,
            "negative_prompt_embeds": both.negative_embeds,
            "negative_pooled_prompt_embeds": both.negative_pooled_embeds,
        }
    both = CompelForSD(pipeline)(one.prompt, negative_prompt=one.negative_prompt)
    return {"prompt_embeds": both.embeds, "negative_prompt_embeds": both.negative_embeds}


def difference(image: Any, pixels: np.ndarray) -> int:
    return int(np.abs(np.asarray(image).astype(int) - pixels).max())


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_weights_and_lengths_mixed_in_one_batch_equal_compel(
    kind: str, start: Start, tiny_model: TinyModel
) -> None:
    runnable, folder = start(kind), tiny_model(kind)
    every = [
        wanted(prompt=WEIGHTED, negative_prompt="a (dog)1.3", prompt_syntax="compel"),
        wanted(prompt=LONG, negative_prompt="a dog"),
        wanted(prompt="a cat", negative_prompt=LONG),
        wanted(prompt=f"{LONG} (blue)1.5", negative_prompt="x", prompt_syntax="compel"),
        wanted(prompt='("a cat", "a dog").blend(0.3, 0.7)', negative_prompt="x"),
    ]
    every[-1] = every[-1].model_copy(update={"prompt_syntax": "compel"})
    tickets = [runnable.submit(one) for one in every]
    for one, ticket in zip(every, tickets, strict=True):
        image = ticket.future.result(timeout=300).images[0].image
        assert difference(image, expected(folder, one)) <= 2, one.prompt


@pytest.mark.parametrize("kind", ["sd1", "sdxl"])
def test_clip_skip_equals_diffusers(kind: str, start: Start, tiny_model: TinyModel) -> None:
    runnable, folder = start(kind), tiny_model(kind)
    plain = runnable.txt2img(wanted()).images[0].image
    for skip in (0, 1, 2):
        one = wanted(clip_skip=skip, negative_prompt="a dog")
        result = runnable.txt2img(one)
        assert (
            difference(result.images[0].image, reference.generate(folder, result.parameters)) <= 2
        )
    assert difference(plain, np.asarray(runnable.txt2img(wanted(clip_skip=2)).images[0].image)) > 2


def test_what_is_beyond_77_tokens_matters(start: Start) -> None:
    runnable = start("sd1")
    first = runnable.txt2img(wanted(prompt=LONG)).images[0].image
    second = runnable.txt2img(wanted(prompt=LONG + " a dog")).images[0].image
    assert difference(first, np.asarray(second).astype(int)) > 2


def test_weights_are_plain_characters_unless_requested(start: Start, tiny_model: TinyModel) -> None:
    one = wanted(prompt="a (cat)1.5++")
    generated = start("sd1").txt2img(one)
    assert difference(generated.images[0].image, reference.generate(tiny_model("sd1"), one)) <= 2


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"prompt": '("a", "b").blend(1)'}, "prompt"),
        ({"prompt": "a cat.swap(dog)"}, "prompt"),
        ({"prompt": '("a", "b").blend(1, 99)'}, "prompt"),
        ({"prompt": "(" * 400}, "prompt"),
        ({"prompt": "cat, " * 201}, "prompt"),
        ({"negative_prompt": "cat, " * 201}, "negative_prompt"),
        ({"negative_prompt": '("a", "b").blend(1)'}, "negative_prompt"),
        ({"clip_skip": 20}, "clip_skip"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    start: Start, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        start("sd1").submit(wanted(**{"prompt_syntax": "compel", **options}))
    assert caught.value.loc == (field,)


def test_a_weighted_prompt_is_parsed_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """All parsing in the process waits for one lock, and so would the engine's thread."""
    parsed: list[str] = []
    parse = PromptParser.parse_conjunction

    def counted(self: PromptParser, prompt: str) -> Any:
        parsed.append(prompt)
        return parse(self, prompt)

    monkeypatch.setattr(PromptParser, "parse_conjunction", counted)
    runnable = start("sdxl")
    for seed in (1, 2):
        runnable.txt2img(wanted(prompt="a (once)1.2 cat", prompt_syntax="compel", seed=seed))
    assert parsed.count("a (once)1.2 cat") == 1
