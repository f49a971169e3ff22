"""The weights of the WebUI's prompts are parsed as the WebUI does."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runnables.attention import escaped, parse
from tests.steps import steps


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [
        ("a cat", [("a cat", 1)]),
        ("a (cat)", [("a ", 1), ("cat", 1.1)]),
        ("((cat)) on [grass]", [("cat", 1.21), (" on ", 1), ("grass", 0.909)]),
        ("(a (red:1.5) cat:0.5)", [("a ", 0.5), ("red", 0.75), (" cat", 0.5)]),
        (r"a cat \(small\)", [("a cat (small)", 1)]),
        (r"a \\ b \c", [(r"a \ b \c", 1)]),
        ("time: 10", [("time: 10", 1)]),
        ("time: 10) and ]", [("time: 10) and ]", 1)]),
        ("a (cat", [("a ", 1), ("cat", 1.1)]),
        ("(x:.5)", [("x", 0.5)]),
        ("(x: 1.2 ) C++", [("x", 1.2), (" C++", 1)]),
        ("(x:y)", [("x:y", 1.1)]),
        ("(x:[1.2])", [("x:", 1.1), ("1.2", 1)]),
        ("(a [b) c]", [("a ", 1.1), ("b", 1), (" c", 0.909)]),
        ("(a:0) (b:10)", [("a", 0), (" ", 1), ("b", 10)]),
        ("((a:0) b)", [("a", 0), (" b", 1.1)]),
        ("", []),
    ],
)
def test_weights(prompt: str, pieces: list[tuple[str, float]]) -> None:
    assert parse(prompt) == pieces


@pytest.mark.parametrize("prompt", ["(a:-1)", "(a:10.5)", "(" * 30 + "a", "((a:9):9)", "(a:1e5)"])
def test_weights_out_of_range(prompt: str) -> None:
    if prompt == "(a:1e5)":
        assert parse(prompt) == [("a:1e5", 1.1)], "not a weight"
        return
    with pytest.raises(ValueError, match="weigh"):
        parse(prompt)


@given(st.text())
def test_an_escaped_text_means_itself(text: str) -> None:
    assert "".join(piece for piece, _ in parse(escaped(text))) == text
    assert all(weight == 1 for _, weight in parse(escaped(text)))


@settings(deadline=None)
@given(st.lists(st.sampled_from([*r"ab()[]:\1. ", ":1.5)", "(a", r"\("]), max_size=300))
@example(["(a"] * 5000)
@example(["("] * 5000 + [")"] * 5000)
@example(["(a", ":1"] * 3000)
@example([":", "1" * 5000])
@example(["a:1.1)"] * 3000)
def test_its_work_grows_with_its_length_alone(parts: list[str]) -> None:
    text = "".join(parts)

    def run() -> None:
        try:
            parse(text)
        except ValueError:
            return

    assert steps(run) <= 200 + 40 * len(text)
