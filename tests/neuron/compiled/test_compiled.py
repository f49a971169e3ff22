"""The real optimum-neuron over a stand-in for the SDK: compiled, loaded, driven step by step."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch_neuronx
from PIL import Image

from models.__main__ import main
from runnables.accelerators.neuron.compilation import Compilation, compile_neuron
from runnables.errors import ConfigurationError, InvalidInput
from runnables.parameters import ImageToImage, Inpaint, TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Inputs
from tests.runnables.engine import reference
from tests.runnables.engine.test_parity import BOUND, inputs, requests

MIXED = ["ddim", "euler", "euler_a", "dpmpp_2m", "unipc", "heun", "lms", "pndm"]
Models = tuple[Path, StableDiffusionRunnable]


@pytest.fixture(scope="module", params=["sd1", "sdxl"])
def compiled(
    request: pytest.FixtureRequest,
    tiny_model: Callable[[str], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Models]:
    """A tiny model, and a runnable that draws with what was compiled of it."""
    source = tiny_model(request.param)
    into = tmp_path_factory.mktemp("compiled") / request.param
    what = Compilation(str(source), ((64, 64),), rows=6, cast="none")
    compile_neuron(what, into, "--disable_neuron_cache")
    runnable = StableDiffusionRunnable(
        Settings(model=str(into), device="neuron", max_queue_s=1e6, request_timeout_s=1e6)
    )
    runnable.start()
    yield source, runnable
    runnable.close()


@pytest.mark.parametrize("task", [TextToImage, ImageToImage, Inpaint])
def test_a_mixed_padded_batch_equals_diffusers(
    compiled: Models, task: type[TextToImage], photo: Image.Image, mask: Image.Image
) -> None:
    """Different steps, guidance and samplers share calls of six rows; the rest is padding."""
    source, runnable = compiled
    wanted = [one.model_copy(update={"height": 64, "width": 64}) for one in requests(MIXED, task)]
    given = inputs(task, photo, mask)
    tickets = [runnable.submit(one, Inputs(*given)) for one in wanted]
    for one, ticket in zip(wanted, tickets, strict=True):
        (drawn,) = ticket.future.result(timeout=300).images
        expected = reference.generate(source, one, *given)
        apart = np.abs(np.asarray(drawn.image).astype(int) - expected).max()
        assert apart <= BOUND, (one.scheduler, apart)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"height": 128}, "height"),
        ({"width": 72}, "height"),
        ({"deep_cache_interval": 2}, "deep_cache_interval"),
        ({"prompt_syntax": "compel"}, "prompt_syntax"),
        ({"embeddings": ("word",)}, "embeddings"),
        ({"prompt": "word " * 200}, "prompt"),
        ({"negative_prompt": "word " * 200}, "negative_prompt"),
        ({"clip_skip": 1}, "clip_skip"),
        ({"hires": {}}, "hires"),
    ],
)
def test_what_was_not_compiled_is_refused(
    compiled: Models, wrong: dict[str, object], field: str
) -> None:
    _, runnable = compiled
    with pytest.raises(InvalidInput) as refused:
        runnable.submit(TextToImage(**{"prompt": "x", "height": 64, "width": 64, **wrong}))  # type: ignore[arg-type]
    assert refused.value.loc == (field,)
    if field == "height":
        assert "64x64" in refused.value.message


def test_what_was_compiled_is_told(compiled: Models) -> None:
    source, runnable = compiled
    assert runnable.describe()["sizes"] == [[64, 64]]
    folder = Path(runnable.settings.model)
    manifest = json.loads((folder / "neuron.json").read_text())
    assert manifest["source"] == str(source)
    assert manifest["shapes"]["64x64"]["compiler_version"] == "2.21.33363.0"
    assert manifest["shapes"]["64x64"]["static_batch_size"] == 3
    assert manifest["libraries"]["optimum-neuron"] == "0.4.5"


def test_the_command_is_what_optimum_neuron_parses(tmp_path: Path) -> None:
    from optimum.commands.export.neuronx import parse_args_neuronx

    parser = ArgumentParser(allow_abbrev=False)
    parse_args_neuronx(parser)
    what = Compilation("a/b", ((512, 768),), rows=8, cast="matmul", instance="trn1")
    parsed = parser.parse_args(what.arguments((512, 768), tmp_path))
    assert (parsed.model, parsed.output) == ("a/b", tmp_path)
    assert (parsed.height, parsed.width, parsed.batch_size) == (512, 768, 4)
    assert (parsed.num_images_per_prompt, parsed.task) == (1, "text-to-image")
    assert (parsed.auto_cast, parsed.auto_cast_type) == ("matmul", "bf16")
    assert (parsed.instance_type, parsed.disable_validation) == ("trn1", True)
    assert not parsed.dynamic_batch_size


def test_the_stand_in_is_as_strict_as_static_shapes() -> None:
    import torch

    traced = torch_neuronx.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(2, 1, 4, 4))
    traced(torch.zeros(2, 1, 4, 4))
    for wrong in (torch.zeros(1, 1, 4, 4), torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 4, 4).half()):
        with pytest.raises(Exception, match="compiled for"):
            traced(wrong)


def test_a_model_that_is_not_compiled_is_named(tiny_model: Callable[[str], Path]) -> None:
    runnable = StableDiffusionRunnable(Settings(model=str(tiny_model("sd1")), device="neuron"))
    with pytest.raises(ConfigurationError, match="compile-neuron"):
        runnable.start()


def test_odd_rows_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compile-neuron", "x", str(tmp_path), "--rows", "3"]) == 1
    assert "rows is 3" in capsys.readouterr().err
