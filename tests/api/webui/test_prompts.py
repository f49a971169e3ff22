"""Prompts of the WebUI: tags, weights and embeddings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from api.webui.prompts import read
from runnables.errors import InvalidInput
from tests.steps import steps


def native(prompt: str, negative: str = "") -> dict[str, Any]:
    return read(prompt, negative).native()


def test_prompts_without_weights_are_plain() -> None:
    assert native(r"a cat \(small\)", "written in C++") == {
        "prompt": "a cat (small)",
        "negative_prompt": "written in C++",
        "prompt_syntax": "plain",
    }


def test_prompts_with_weights_stay_as_they_were_sent() -> None:
    found = native("a (red:1.2) circle, written in C++", r"\(x\)")
    assert found == {
        "prompt": "a (red:1.2) circle, written in C++",
        "negative_prompt": r"\(x\)",
        "prompt_syntax": "webui",
    }


@pytest.mark.parametrize(
    ("tag", "lora"),
    [
        ("<lora:x>", {"name": "x", "weight": 1}),
        ("<lora:x:0.5>", {"name": "x", "weight": 0.5}),
        ("<lyco:x y:-1>", {"name": "x y", "weight": -1}),
        ("<lora:x:0.5:0.5>", {"name": "x", "weight": 0.5}),
        ("<lora:x:0:1>", {"name": "x", "weight": 1, "text_weight": 0}),
        ("<lora:x:0.5:te=0>", {"name": "x", "weight": 0}),
        ("<lora:x:1:unet=0.2>", {"name": "x", "weight": 0.2, "text_weight": 1}),
        ("<lora:x:te=0.5:unet=0.5>", {"name": "x", "weight": 0.5}),
    ],
)
def test_tags(tag: str, lora: dict[str, Any]) -> None:
    found = read(f"a {tag} cat", "")
    assert (found.prompt, found.loras) == ("a  cat", (lora,))


@pytest.mark.parametrize("text", ["a <b> c", "<3 x > y", "<lora:>", "a > b", "<lora:x", "<:x>"])
def test_what_is_no_tag(text: str) -> None:
    found = read(text, "<lora:x:1>")
    assert (found.prompt, found.negative_prompt, found.loras) == (text, "<lora:x:1>", ())


@pytest.mark.parametrize(
    "tag",
    ["<lora:x:much>", "<lora:x:1:1:8>", "<lora:x:1:dyn=8>", "<lora:x:1:lbw=A>", "<hypernet:x:1>"],
)
def test_tags_that_are_refused_by_name(tag: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(f"a {tag}", "")
    assert caught.value.loc == ("prompt",)
    assert tag in caught.value.message


def test_weights_that_are_refused_name_their_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        native("a cat", "(dog:11)")
    assert caught.value.loc == ("negative_prompt",)


def test_embeddings_are_whole_words() -> None:
    found = read("a Toy, <cat> and toyland <lora:dog:1>", "bad-hands")
    names = ["toy", "<cat>", "land", "dog", "bad-hands", "bad"]
    assert found.embeddings(names) == ["toy", "<cat>", "bad-hands"]
    assert found.embeddings([]) == []


@settings(deadline=None)
@given(st.lists(st.sampled_from([*"<>:ab ", "<lora:", "<lora:a:1>"]), max_size=300))
@example(["<lora:a"] * 8000)
@example(["<lora:a:1>"] * 1000)
@example(["<a"] * 8000 + [">"])
@example([">"] * 8000)
def test_its_work_grows_with_its_length_alone(parts: list[str]) -> None:
    text = "".join(parts)

    def run() -> None:
        try:
            read(text, "")
        except InvalidInput:
            return

    assert steps(run) <= 100 + 20 * len(text)
