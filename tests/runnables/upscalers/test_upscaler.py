"""Swin2SR gives its own model's output, in tiles without seams, from the operator's folder."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from runnables.errors import ConfigurationError, GenerationFailed, InvalidInput, UnknownName
from runnables.settings import Settings
from runnables.upscalers.library import Upscalers, describe
from runnables.upscalers.upscaler import CPU_CUT, Cut, Lanczos, Swin2SR, Tiles, Upscaler, spans
from tests import upscalers

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two models, and one that is none."""
    root = tmp_path_factory.mktemp("upscalers")
    upscalers.build(root / "tiny-x2")
    upscalers.build(root / "tiny-x4", 4, "nearest+conv")
    (root / "other").mkdir()
    (root / "other" / "config.json").write_text('{"model_type": "clip"}')
    (root / "broken").mkdir()
    (root / "broken" / "config.json").write_text("{")
    return root


def library(folder: Path | None) -> Upscalers:
    return Upscalers(Settings(upscaler_dir=str(folder) if folder else None), CPU)


def enlarged(upscaler: Upscaler, image: Image.Image, scale: float | None = None) -> np.ndarray:
    scale = scale or upscaler.scale
    turns = upscaler.enlarge(image, (round(image.height * scale), round(image.width * scale)))
    return np.asarray(ended(turns, upscaler.turns((image.height, image.width)))).astype(int)


def ended(turns: Tiles, count: int) -> Image.Image:
    for _ in range(count):
        next(turns)
    with pytest.raises(StopIteration) as stopped:
        next(turns)
    larger: Image.Image = stopped.value.value
    return larger


def picture(width: int, height: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    small = Image.fromarray(noise).resize((width // 8 + 1, height // 8 + 1)).resize((width, height))
    return Image.blend(small, Image.fromarray(noise), 0.3)


def directly(model: Swin2SR, image: Image.Image) -> np.ndarray:
    """Call the model as transformers' documentation does."""
    from transformers.models.swin2sr.image_processing_pil_swin2sr import Swin2SRImageProcessorPil

    inputs = Swin2SRImageProcessorPil()(image, return_tensors="pt")
    with torch.no_grad():
        output = model._model(**inputs).reconstruction.squeeze().clamp(0, 1).numpy()
    pixels = (np.moveaxis(output, 0, -1) * 255.0).round().astype(int)
    return pixels[: image.height * model.scale, : image.width * model.scale]


def loaded(folder: Path, name: str) -> Swin2SR:
    found = library(folder).get(name, ("upscaler",))
    assert isinstance(found, Swin2SR)
    return found


@pytest.mark.parametrize("name", ["tiny-x2", "tiny-x4"])
@pytest.mark.parametrize("size", [(64, 64), (50, 31), (1, 1), (3, 60)])
def test_an_image_in_one_tile_is_the_models_own(
    folder: Path, name: str, size: tuple[int, int]
) -> None:
    model, image = loaded(folder, name), picture(*size)
    result = enlarged(model, image)
    assert result.shape == (size[1] * model.scale, size[0] * model.scale, 3)
    assert np.abs(result - directly(model, image)).max() <= 1


def test_the_test_model_has_structure(folder: Path) -> None:
    assert enlarged(loaded(folder, "tiny-x2"), picture(64, 64)).std() > 20


def test_tiles_that_see_all_that_matters_equal_the_whole(folder: Path) -> None:
    """It is exact but for rounding, because what a pixel depends on lies within the margin."""
    model, image = loaded(folder, "tiny-x2"), picture(200, 170)
    tiled = Swin2SR("tiled", model._model, Cut(96, 64, 24))
    assert tiled.turns((170, 200)) > 9
    assert np.abs(enlarged(tiled, image) - directly(model, image)).max() <= 2


@pytest.mark.parametrize(("cut", "turns"), [(Cut(), 6), (CPU_CUT, 24)])
def test_tiles_of_the_usual_sizes_are_close_to_the_whole(
    folder: Path, cut: Cut, turns: int
) -> None:
    model, image = loaded(folder, "tiny-x2"), picture(230, 150)
    tiled = Swin2SR("tiled", model._model, cut)
    difference = np.abs(enlarged(tiled, image) - directly(model, image))
    assert tiled.turns((150, 230)) == turns
    assert difference.mean() < 1
    first = slice(0, 2 * (cut.tile - 24))  # far enough from where the first tile ends
    assert difference[first, first].max() <= 1


def test_a_cpu_gets_smaller_tiles(folder: Path) -> None:
    assert loaded(folder, "tiny-x2").turns((100, 100)) == 4


@pytest.mark.parametrize("cut", [Cut(), CPU_CUT])
@pytest.mark.parametrize("length", [1, 8, 127, 128, 129, 160, 161, 1000])
def test_spans_cover_everything_once_and_stay_aligned(length: int, cut: Cut) -> None:
    found = spans(length, cut)
    assert (found[0].start, found[-1].stop) == (0, length)
    for one, following in pairwise(found):
        assert one.stop == following.start + following.ramp
        assert following.first % 8 == 0
    for one in found:
        assert one.first <= one.start < one.stop <= one.last <= one.first + cut.tile
        assert one.ramp <= one.stop - one.start


def test_another_scale_is_resampled_from_the_models_own(folder: Path) -> None:
    model, image = loaded(folder, "tiny-x2"), picture(40, 40)
    own = Image.fromarray(enlarged(model, image).astype(np.uint8))
    for scale, side in ((1.5, 60), (4, 160)):
        expected = np.asarray(own.resize((side, side), Image.Resampling.LANCZOS)).astype(int)
        assert (enlarged(model, image, scale) == expected).all()


def test_numbers_that_are_none_are_an_error(folder: Path) -> None:
    model = loaded(folder, "tiny-x2")
    with torch.no_grad():
        next(model._model.parameters()).fill_(torch.nan)
    with pytest.raises(GenerationFailed, match="not numbers"):
        enlarged(model, picture(16, 16))


def test_the_folder_is_listed(folder: Path) -> None:
    lanczos = {"name": "lanczos", "scale": 2}
    assert describe(None) == [lanczos]
    assert describe(str(folder)) == [
        lanczos,
        {"name": "tiny-x2", "scale": 2},
        {"name": "tiny-x4", "scale": 4},
    ]


def test_a_model_is_loaded_once(folder: Path) -> None:
    models = library(folder)
    assert models.get("tiny-x2", ()) is models.get("tiny-x2", ())
    assert isinstance(models.get("lanczos", ()), Lanczos)


@pytest.mark.parametrize("name", ["tiny", "other", "broken", "../tiny-x2", "latent"])
def test_names_that_are_not_there(folder: Path, name: str) -> None:
    with pytest.raises(UnknownName, match="lanczos, tiny-x2, tiny-x4") as caught:
        library(folder).get(name, ("hires", "upscaler"))
    assert caught.value.loc == ("hires", "upscaler")


@pytest.mark.parametrize("damage", ["no weights", "cut off", "wrong config", "incomplete"])
def test_a_damaged_model_is_refused(tmp_path: Path, damage: str) -> None:
    upscalers.build(tmp_path / "bad")
    weights, config = tmp_path / "bad" / "model.safetensors", tmp_path / "bad" / "config.json"
    if damage == "no weights":
        weights.unlink()
    elif damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "incomplete":
        tensors = load_file(weights)
        save_file(dict(list(tensors.items())[1:]), weights, {"format": "pt"})
    else:
        config.write_text(json.dumps({**json.loads(config.read_text()), "embed_dim": 24}))
    with pytest.raises(InvalidInput, match="bad cannot be loaded") as caught:
        library(tmp_path).get("bad", ("upscaler",))
    assert caught.value.loc == ("upscaler",)


def test_a_wrong_folder_stops_the_start() -> None:
    with pytest.raises(ConfigurationError, match="SD_UPSCALER_DIR"):
        library(Path("/nowhere"))
