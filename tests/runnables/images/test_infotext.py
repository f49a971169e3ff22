"""The WebUI's text about an image is written and read."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runnables.images import infotext
from tests import limited
from tests.steps import steps

PARAMETERS = {
    "prompt": "a cat, Steps: 3\nin two lines",
    "negative_prompt": "dogs, rain",
    "num_inference_steps": 20,
    "scheduler": "euler",
    "guidance_scale": 7.5,
    "seed": 2**53 - 1,
    "width": 64,
    "height": 32,
    "strength": 0.4,
}
SETTINGS = (
    "Steps: 20, Sampler: Euler, Schedule type: Uniform, CFG scale: 7.5, Seed: 9007199254740991, "
    "Size: 64x32, Denoising strength: 0.4"
)


def test_the_text_is_in_the_webuis_form() -> None:
    assert infotext.write(PARAMETERS).split("\n") == [
        "a cat, Steps: 3",
        "in two lines",
        "Negative prompt: dogs, rain",
        SETTINGS,
    ]


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"scheduler": "dpmpp_2m_karras"}, "Sampler: DPM++ 2M, Schedule type: Karras,"),
        ({"scheduler": "euler_trailing"}, "Sampler: Euler, Schedule type: SGM Uniform,"),
        ({"scheduler": "default"}, "Sampler: default, CFG scale"),
        ({"clip_skip": 1}, "Clip skip: 2"),
        ({"prompt": "a (cat)"}, r"a \(cat\)"),
        ({"prompt": "a (cat:1.2)", "prompt_syntax": "webui"}, "a (cat:1.2)"),
        ({"loras": [{"name": "ink", "weight": 0.8}]}, "lines <lora:ink:0.8>"),
        ({"loras": [{"name": "ink", "weight": 1, "text_weight": 0}]}, "lines <lora:ink:0:1>"),
        ({"negative_prompt": "[x]"}, r"Negative prompt: \[x\]"),
        ({"model": "a, b"}, 'Model: "a, b"'),
    ],
)
def test_names_are_the_webuis(parameters: dict[str, Any], line: str) -> None:
    assert line in infotext.write({**PARAMETERS, **parameters})


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nNegative prompt: b", "a Negative prompt: b"),
        ("a\n \n\tNegative prompt: b", "a Negative prompt: b"),
        ("a\n\nNegative prompt", "a\n\nNegative prompt"),
        ("a\n\nb", "a\n\nb"),
    ],
)
def test_a_prompt_with_a_line_like_the_negative_one(text: str, line: str) -> None:
    for name in ("prompt", "negative_prompt"):
        written = infotext.write({**PARAMETERS, name: text})
        assert infotext.parse(written)["Negative prompt"] in (line.strip(), "dogs, rain")
        assert f"{line}\n" in written


def test_it_is_written_in_time_in_proportion_to_its_length() -> None:
    code = r"""
for prompt in ("\n" * 300_000 + "x", "\n " * 150_000 + "x", "\nNegative prompt" * 20_000):
    write({"prompt": prompt, "negative_prompt": prompt, "num_inference_steps": 1,
           "scheduler": "euler", "guidance_scale": 1, "seed": 1, "width": 8, "height": 8})
"""
    imports = "from runnables.images.infotext import write\n"
    assert limited.run(imports, code).returncode == 0


def test_what_is_written_is_read() -> None:
    found = infotext.parse(infotext.write({**PARAMETERS, "model": 'a, "b": c'}))
    assert found["Prompt"] == PARAMETERS["prompt"]
    assert found["Negative prompt"] == PARAMETERS["negative_prompt"]
    assert found["Seed"] == str(2**53 - 1)
    assert (found["Size-1"], found["Size-2"]) == ("64", "32")
    assert found["Model"] == 'a, "b": c'


def test_a_webuis_own_text() -> None:
    text = (
        "a castle\nSteps: 28, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 6, Seed: 7, "
        'Size: 512x768, Lora hashes: "a: b, c: \\"d\\"", Hires upscaler: 4x-UltraSharp, Version: v1'
    )
    found = infotext.parse(text)
    assert (found["Sampler"], found["Schedule type"]) == ("DPM++ 2M", "Karras")
    assert found["Lora hashes"] == 'a: b, c: "d"'
    assert found["Hires upscaler"] == "4x-UltraSharp"
    assert (found["Prompt"], found["Negative prompt"]) == ("a castle", "")


def test_what_is_no_such_text() -> None:
    for text in ("", "a cat", "a\nSteps 4", "Steps: 4, " + "a: b, " * 200_000):
        assert infotext.parse(text) == {}


def test_a_quotation_mark_that_is_never_closed() -> None:
    assert infotext.parse('Steps: 4, A: "b, C: d')["C"] == "d"


@settings(deadline=None)
@given(st.lists(st.sampled_from([*'aZ,:"\\ \n', "\\a", ', b: "', 'Steps: 4, A: "']), max_size=200))
@example(["Steps: 4, ", 'A: "', *["\\a"] * 5000])
@example(["Steps: 4, ", *[', b: "\\'] * 5000])
@example(["Steps: 4, ", *["a a "] * 5000])
@example(["Steps: 4, ", *[":"] * 5000])
@example(["Steps: 4, ", *[" "] * 5000])
def test_its_work_grows_with_its_length_alone(parts: list[str]) -> None:
    text = "".join(parts)
    assert steps(infotext.parse, text) <= 100 + 20 * len(text)
