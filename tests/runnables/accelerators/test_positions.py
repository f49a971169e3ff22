"""A call on a list of positions gives each row what diffusers' own UNet gives it alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from runnables.accelerators.cpu import by_size
from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cpu.positions import Layout, PositionsCall, Sizes, fits
from runnables.accelerators.cpu.trace import USES
from runnables.assembly import family_of
from runnables.checkpoints.loading import load
from runnables.families.base import Conditioning
from runnables.families.canvas import Canvas, largest
from runnables.families.unet import UNetFamily
from runnables.settings import EMBEDDED_MODEL, Settings

TinyModel = Callable[[str], Path]
Size = tuple[int, int]
SQUARE, LOW, NARROW = (8, 8), (4, 8), (8, 4)
SIZES = [SQUARE, LOW, NARROW, SQUARE, LOW, SQUARE]
TOKENS = [77, 154, 77, 77, 231, 154]


def family(folder: Path, precision: Any = "fp32") -> tuple[Cpu, UNetFamily]:
    accelerator = Cpu(Settings(precision=precision))
    made: Any = family_of(load(str(folder), dtype=accelerator.dtype), accelerator)
    accelerator.prepare(made)
    return accelerator, made


def texts(model: UNetFamily, tokens: Sequence[int]) -> list[Conditioning]:
    width = model.unet.config.cross_attention_dim
    made = []
    for number, count in enumerate(tokens):
        one = Conditioning(torch.randn(count, width).to(model.dtype))
        if model.pooled_text:
            pooled = torch.randn(model.encoders[-1].model.config.projection_dim).to(model.dtype)
            time_ids = torch.tensor([64.0, 64, 0, 0, 64, 32 + number])
            one = replace(one, pooled=pooled, time_ids=time_ids)
        made.append(one)
    return made


def call(
    model: UNetFamily, sizes: Sequence[Size], rows: Sequence[Conditioning]
) -> tuple[Tensor, Tensor, Conditioning]:
    """Random samples as a batch stacks them."""
    sample = torch.zeros(len(sizes), model.unet.config.in_channels, *largest(sizes))
    for row, (height, width) in zip(sample, sizes, strict=True):
        row[:, :height, :width] = torch.randn(len(row), height, width)
    given = Conditioning.stack(rows)
    if len(set(sizes)) > 1:
        multiple = model.traits.canvas_multiple
        given = replace(given, canvas=Canvas(sizes, multiple, model.device, model.dtype))
    return sample, torch.linspace(1, 999, len(sizes)), given


def alone(
    model: UNetFamily,
    sizes: Sequence[Size],
    rows: Sequence[Conditioning],
    sample: Tensor,
    timesteps: Tensor,
) -> list[Tensor]:
    return [
        model.denoise(
            sample[i : i + 1, :, :height, :width], timesteps[i : i + 1], Conditioning.stack([text])
        )[0]
        for i, ((height, width), text) in enumerate(zip(sizes, rows, strict=True))
    ]


def largest_difference(
    accelerator: Cpu, model: UNetFamily, sizes: Sequence[Size], rows: Sequence[Conditioning]
) -> float:
    """Between rows alone and together; what lies outside of a row is zero."""
    sample, timesteps, given = call(model, sizes, rows)
    expected = alone(model, sizes, rows, sample, timesteps)
    found = accelerator.denoise(model, sample, timesteps, given)
    differences = []
    for one, own, (height, width) in zip(found, expected, sizes, strict=True):
        differences.append(float((one[:, :height, :width] - own).abs().max()))
        assert not one[:, height:].any()
        assert not one[:, :, width:].any()
    return max(differences)


@pytest.mark.parametrize("traced", [False, True])
@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
@torch.inference_mode()
def test_a_row_is_what_it_is_alone(kind: str, traced: bool, tiny_model: TinyModel) -> None:
    accelerator, model = family(tiny_model(kind))
    assert model.listed
    assert accelerator._traces is not None
    accelerator._traces.uses = 1 if traced else USES
    for sizes, tokens in ((SIZES, TOKENS), (SIZES, [77] * 6), ([SQUARE] * 3, [77] * 3)):
        rows = texts(model, tokens)
        assert largest_difference(accelerator, model, sizes, rows) < 1e-4
        shared = [rows[i // 2] for i in range(len(rows))]
        assert largest_difference(accelerator, model, sizes, shared) < 1e-4
    assert len(accelerator._traces) == (4 if traced else 0)  # three with 231, 154 and 77 tokens


@torch.inference_mode()
def test_the_demo_model(tiny_model: TinyModel) -> None:
    """Its convolutions are Winograd's."""
    accelerator, model = family(EMBEDDED_MODEL)
    rows = texts(model, [77] * 6)
    sizes = [(16, 16), (12, 16), (16, 12), (16, 16), (16, 12), (16, 16)]
    assert largest_difference(accelerator, model, sizes, rows) < 1e-4


@pytest.mark.skipif(
    not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN has no bf16 on this CPU"
)
@torch.inference_mode()
def test_in_bf16(tiny_model: TinyModel) -> None:
    accelerator, model = family(tiny_model("sd1"), "bf16")
    rows = texts(model, TOKENS)
    assert largest_difference(accelerator, model, SIZES, rows) < 0.05


@pytest.mark.parametrize("part", ["norms", "neighbours", "texts", "order", "mask"])
@torch.inference_mode()
def test_each_part_is_needed(
    part: str, tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test above notices where one of the parts is wrong."""
    accelerator, model = family(tiny_model("sd1"))
    if part == "norms":
        monkeypatch.setattr(by_size, "group_norm", lambda hidden, *_: hidden)
    elif part == "neighbours":
        monkeypatch.setattr(by_size, "self_attention", lambda query, key, value, *_: value)
    else:
        made = Layout.__init__

        def wrong(self: Layout, rows: Any, sizes: Any, given: Conditioning) -> None:
            if part == "texts":
                given = replace(given, texts=(0,) * len(rows))
            elif part == "mask":
                given = replace(given, mask=None)
            made(self, rows, sizes, given)
            if part == "order":
                self._order = self._order.flip(0)

        monkeypatch.setattr(Layout, "__init__", wrong)
    assert largest_difference(accelerator, model, SIZES, texts(model, TOKENS)) > 1e-3


@torch.inference_mode()
def test_one_trace_serves_rows_of_some_of_the_sizes(tiny_model: TinyModel) -> None:
    """With the same bits as without one."""
    accelerator, model = family(tiny_model("sd1"))
    assert accelerator._traces is not None
    accelerator._traces.uses = 1
    calls = ([SQUARE, LOW, NARROW], [SQUARE, LOW], [SQUARE, NARROW, SQUARE], [LOW, NARROW])
    for sizes in calls:
        sample, timesteps, given = call(model, sizes, texts(model, [77] * len(sizes)))
        found = accelerator.denoise(model, sample, timesteps, given)
        layout = accelerator._layouts[given]
        plain = PositionsCall(model, layout.sizes)
        expected = plain([*layout.listed(sample, timesteps), *layout.inputs])
        assert torch.equal(found, layout.placed(expected, sample))
    assert len(accelerator._traces) == 1


@torch.inference_mode()
def test_keys_and_values_are_computed_once_for_each_text(
    tiny_model: TinyModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator, model = family(tiny_model("sd1"))
    seen: set[int] = set()
    attentions = [one for name, one in model.unet.named_modules() if name.endswith("attn2")]
    for one in attentions:
        one.to_k.register_forward_hook(lambda layer, inputs, output: seen.add(len(inputs[0])))
    first, second, negative = texts(model, [77] * 3)
    rows = [first, second, first, negative, negative, negative]
    accelerator.denoise(model, *call(model, SIZES, rows))
    assert seen == {3}


def test_rows_with_texts_of_their_own_share_a_product() -> None:
    """As many rows with one text each are one run, and rows with the same text are another."""
    states = [torch.randn(7, 4) for _ in range(5)]
    negative, *own = [Conditioning(one) for one in states]
    given = Conditioning.stack([*own, *[negative] * 4])
    runs = Layout([SQUARE] * 8, [SQUARE], given).inputs[1]
    assert runs is not None
    assert runs.tolist() == [[0, 4, 0, 1], [0, 1, 1, 4]]


@torch.inference_mode()
def test_sizes_that_do_not_halve_run_as_diffusers_has_them(tiny_model: TinyModel) -> None:
    accelerator, model = family(tiny_model("sd1"))
    given = call(model, [(9, 8)], texts(model, [77]))
    assert torch.equal(accelerator.denoise(model, *given), model.denoise(*given))


def first(unet: nn.Module, kind: str) -> Any:
    return next(one for one in unet.modules() if type(one).__name__ == kind)


CHANGES: dict[str, Callable[[Any], object]] = {
    "class embedding": lambda unet: setattr(unet, "class_embedding", nn.Linear(1, 1)),
    "another activation": lambda unet: unet.register_to_config(act_fn="gelu"),
    "images beside the text": lambda unet: unet.register_to_config(addition_embed_type="image"),
    "a centred input": lambda unet: unet.register_to_config(center_input_sample=True),
    "no last norm": lambda unet: setattr(unet, "conv_norm_out", None),
    "another block": lambda unet: unet.register_to_config(mid_block_type="UNetMidBlock2D"),
    "time untouched": lambda unet: setattr(first(unet, "ResnetBlock2D"), "skip_time_act", True),
    "another norm": lambda unet: setattr(first(unet, "BasicTransformerBlock"), "norm_type", "ada"),
    "no text": lambda unet: setattr(first(unet, "BasicTransformerBlock"), "attn2", None),
    "another processor": lambda unet: setattr(first(unet, "Attention"), "processor", object()),
    "normed queries": lambda unet: setattr(first(unet, "Attention"), "norm_q", nn.Identity()),
    "another padding": lambda unet: setattr(first(unet, "Downsample2D"), "padding", 0),
    "pooled": lambda unet: setattr(first(unet, "Upsample2D"), "use_conv", False),
    "not packed": lambda unet: setattr(unet, "conv_in", nn.Conv2d(4, 32, 3, padding=1)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_another_unet_runs_as_diffusers_has_it(
    change: Callable[[Any], object], tiny_model: TinyModel
) -> None:
    _, model = family(tiny_model("sd1"))
    assert fits(model.unet)
    change(model.unet)
    assert not fits(model.unet)


def test_the_sizes_that_came_lately_are_known() -> None:
    sizes = Sizes()
    assert sizes.lately([(16, 16), (12, 16), (16, 16)]) == [(16, 16), (12, 16)]
    assert sizes.lately([(16, 16), (16, 12)]) == [(16, 16), (16, 12), (12, 16)]
    assert sizes.lately([(12, 16), (16, 12)]) == [(16, 16), (16, 12), (12, 16)], "as large"
    assert sizes.lately([(32, 16), (8, 8)]) == [(32, 16), (8, 8)], "larger"
    assert sizes.lately([(16, 16)] * 3) == [(16, 16)], "a call of one size is its own"
    for side in (4, 8):
        sizes.lately([(16, 16), (side, side)])
    assert sizes.lately([(16, 16), (2, 2)]) == [(16, 16), (8, 8), (4, 4), (2, 2)], "the latest"
    every = [(16, 16), (14, 14), (12, 12), (10, 10), (8, 8)]
    assert sizes.lately(every) == every, "all that a call has"
