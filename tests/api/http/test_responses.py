"""Which format a client gets."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from starlette.responses import Response

from api.http import responses
from api.http.responses import choose_format
from runnables.errors import InvalidInput
from runnables.parameters import TextToImage

BROWSER = "text/html,application/xhtml+xml,image/avif,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "several", "chosen"),
    [
        ("", False, "jpeg"),
        ("*/*", False, "jpeg"),
        ("image/*", False, "jpeg"),
        ("image/png", False, "png"),
        ("IMAGE/PNG", False, "png"),
        ("image/jpg", False, "jpeg"),
        ("application/json;q=0.1, image/png", False, "png"),
        ("image/png;q=0, image/webp;q=0.2", False, "webp"),
        ("image/png;q=high", False, "png"),
        (BROWSER, False, "webp"),
        ("*/*", True, "json"),
        ("application/json", True, "json"),
    ],
)
def test_accept(accept: str, several: bool, chosen: str) -> None:
    asked = TextToImage(prompt="x", num_images_per_prompt=2 if several else 1)
    assert choose_format(asked, accept) == chosen


def test_output_format_comes_before_accept() -> None:
    assert choose_format(TextToImage(prompt="x", output_format="webp"), "image/png") == "webp"


@pytest.mark.parametrize("accept", ["text/html", "image/gif", "*/*;q=0"])
def test_what_cannot_be_sent_is_refused(accept: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        choose_format(TextToImage(prompt="x"), accept)
    assert caught.value.loc == ("accept",)


@pytest.mark.parametrize("accept", ["image/png", "image/*"])
def test_several_images_are_never_dropped_silently(accept: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        choose_format(TextToImage(prompt="x", num_images_per_prompt=2), accept)
    assert caught.value.loc == ("num_images_per_prompt",)


def test_a_hint_in_any_language_is_a_header() -> None:
    """A model's own vocabulary may be in any; headers hold ASCII."""
    hint = responses.as_header("it knows кот, 100% and\nothers")
    assert Response(headers={"hint": hint}).headers["hint"] == hint
    assert unquote(hint) == "it knows кот, 100% and\nothers"
    assert responses.as_header("it knows a cat; and others") == "it knows a cat; and others"
