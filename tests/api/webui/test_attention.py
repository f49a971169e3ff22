"""The WebUI's weights reach compel's parser as they were meant."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from compel.prompt_parser import PromptParser

from api.webui.attention import compel, parse, plain


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat)) on [grass]", [("cat", 1.21), (" on ", 1), ("grass", 0.909)]),
        ("(a (red:1.5) cat:0.5)", [("a ", 0.5), ("red", 0.75), (" cat", 0.5)]),
        (r"a cat \(drawn\)", [("a cat (drawn)", 1)]),
        ("time: 10", [("time: 10", 1)]),
        ("time: 10) and ]", [("time: 10) and ]", 1)]),
        ("a (cat", [("a ", 1), ("cat", 1.1)]),
        ("(x:.5)", [("x", 0.5)]),
        ("", []),
    ],
)
def test_weights(prompt: str, pieces: list[tuple[str, float]]) -> None:
    assert parse(prompt) == pieces


@pytest.mark.parametrize(
    "prompt",
    [
        "a (red:1.4), round cat.",
        "(a:1.2)(b:0.8)",
        "(a man, [a hat:0.5] and \\(so on\\):1.3), well-lit",
        'he said "(hello)" twice',
        "((a)) ((b)) c",
    ],
)
def test_compel_reads_what_was_meant(prompt: str) -> None:
    told = compel([prompt])
    assert told is not None
    (read,) = PromptParser().parse_conjunction(told[0]).prompts
    assert letters((part.text, part.weight) for part in read.children) == letters(parse(prompt))


def letters(pieces: Iterable[tuple[str, float]]) -> list[tuple[str, float]]:
    """Every character's weight; blanks have none."""
    weighted = [(text, round(weight, 3)) for text, weight in pieces]
    return [(one, weight) for text, weight in weighted for one in text if not one.isspace()]


def test_prompts_without_weights_stay_plain() -> None:
    assert compel(["a cat", "dog"]) is None
    assert plain(r"a cat \(drawn\)") == "a cat (drawn)"
