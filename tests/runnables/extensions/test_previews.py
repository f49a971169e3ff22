"""Previews show what the image will be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from runnables.errors import ConfigurationError
from runnables.extensions.previews import LinearMap, _bytes, estimate
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL
from runnables.ticket import Progress, Result
from tests.insides import base_of

Start = Callable[..., StableDiffusionRunnable]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
@pytest.mark.parametrize(("of_image", "of_noise"), [(0.8, 0.6), (1.0, 3.0)])
def test_a_perfect_model_shows_the_image_itself(
    prediction: str, of_image: float, of_noise: float
) -> None:
    """This holds for variance-preserving and for sigma-scaled samplers, and for flows."""
    image, noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    size = (of_image**2 + of_noise**2) ** 0.5
    velocity = (of_image * noise - of_noise * image) / size
    outputs = {"epsilon": noise, "v_prediction": velocity, "sample": image, "flow": noise - image}
    seen = estimate(
        of_image * image + of_noise * noise, outputs[prediction], (of_image, of_noise), prediction
    )
    assert torch.allclose(seen, image, atol=1e-5)


def test_no_colour_is_outside_of_a_byte() -> None:
    colours = torch.tensor([-9.0, -1.0, 0.5, 1.0, 9.0, float("nan")])
    assert _bytes(colours).tolist() == [0, 0, 191, 255, 255, 0]


@torch.inference_mode()
def test_the_small_preview_has_the_colours_of_the_image(start: Start) -> None:
    family = base_of(start("sd1", model=EMBEDDED_MODEL))
    colours = [[[200, 40, 40], [40, 160, 60]], [[30, 50, 190], [230, 220, 60]]]
    corners = torch.tensor(colours).permute(2, 0, 1)  # red, green; blue, yellow
    picture = corners.repeat_interleave(64, 1).repeat_interleave(64, 2)
    latents = family.to_latents(picture[None] / 127.5 - 1, torch.Generator().manual_seed(0))
    preview = LinearMap(family)(latents[0]).permute(2, 0, 1)
    wanted = corners.repeat_interleave(8, 1).repeat_interleave(8, 2)
    assert preview.shape == wanted.shape
    assert (preview.float() - wanted).abs().mean() < 10  # of 255


def generated(runnable: StableDiffusionRunnable, every: int) -> tuple[Result, list[Progress]]:
    reported: list[Progress] = []
    ticket = runnable.submit(
        TextToImage(prompt="a red circle on a blue background", seed=1, num_inference_steps=12),
        on_step=reported.append,
        preview_every=every,
    )
    return ticket.future.result(timeout=300), reported


def test_previews_come_nearer_to_the_image(start: Start) -> None:
    result, reported = generated(start("sd1", model=EMBEDDED_MODEL), every=3)
    previews = {progress.step: progress.preview for progress in reported if progress.preview}
    assert list(previews) == [3, 6, 9]
    final = result.images[0].image.resize((16, 16), Image.Resampling.BOX)
    distances = [
        float(np.abs(np.asarray(one, float) - np.asarray(final, float)).mean())
        for one in previews.values()
        if one is not None
    ]
    assert distances[0] > distances[-1]
    assert distances[-1] < 20  # of 255


def test_none_is_generated_without_request(start: Start) -> None:
    _, reported = generated(start("sd1"), every=0)
    assert reported and all(progress.preview is None for progress in reported)


def save_tiny_vae(folder: Path) -> None:
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    AutoencoderTiny(
        encoder_block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    ).save_pretrained(folder)


def test_a_tiny_vae_shows_them_in_full_size(start: Start, tmp_path: Path) -> None:
    save_tiny_vae(tmp_path)
    _, reported = generated(start("sd1", preview_vae=str(tmp_path)), every=6)
    sizes = [progress.preview.size for progress in reported if progress.preview]
    assert sizes == [(64, 64), (64, 64)]  # PNDM calls the UNet 13 times for 12 steps


@pytest.mark.parametrize(("policy", "side"), [("block", 8), ("blur", 8), ("flag", 64)])
def test_no_preview_shows_what_the_safety_checker_may_withhold(
    start: Start, strict_model: Path, tmp_path: Path, policy: str, side: int
) -> None:
    """Previews are not checked: where checked images may be withheld they stay small."""
    save_tiny_vae(tmp_path)
    strict = {"model": str(strict_model), "preview_vae": str(tmp_path), "safety": policy}
    _, reported = generated(start("sd1", **strict), every=6)
    assert {one.preview.size for one in reported if one.preview} == {(side, side)}


def test_a_folder_without_a_tiny_vae_is_refused(start: Start, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SD_PREVIEW_VAE"):
        start("sd1", preview_vae=str(tmp_path))
