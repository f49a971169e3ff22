"""Bodies are checked in bounded time, and answers about them are short."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from api.http import validation
from api.http.validation import Invalid, json_object, validated
from runnables.errors import InvalidInput, error_body
from runnables.parameters import TextToImage
from tests import limited
from tests.steps import steps


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")

    size: int = Field(1, ge=1)


class Body(Inner):
    name: str = ""
    inner: Inner | None = None


def problems(content: Any, **options: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidInput) as caught:
        validated(Body, content, **options)
    found: list[dict[str, Any]] = error_body(caught.value)["detail"]  # type: ignore[assignment]
    return found


def test_every_wrong_field_is_named() -> None:
    found = problems({"size": 0, "inner": {"size": "x"}, "other": 1}, prefix=("data",))
    assert [one["loc"] for one in found] == [
        ["data", "size"],
        ["data", "inner", "size"],
        ["data", "other"],
    ]


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("steps", "num_inference_steps"),
        ("cfg_scale", "guidance_scale"),
        ("promt", "prompt"),
    ],
)
def test_an_unknown_field_gets_the_one_that_was_meant(sent: str, meant: str) -> None:
    with pytest.raises(Invalid, match=rf"^{sent}: there is no such field; did you mean {meant}\?$"):
        validated(TextToImage, {"prompt": "x", sent: 1})


def test_a_field_like_no_other_gets_no_suggestion() -> None:
    with pytest.raises(Invalid, match=r"^zzz: there is no such field$"):
        validated(TextToImage, {"prompt": "x", "zzz": 1})


def test_the_suggestion_is_the_callers_name() -> None:
    (found,) = problems({"sise": 1}, names={"size": "img_size"})
    assert found["msg"].endswith("did you mean img_size?")


def test_names_of_fields_are_the_callers() -> None:
    (found,) = problems({"inner": {"size": 0}}, names={"inner": "their.own"})
    assert found["loc"] == ["their", "own", "size"]


def test_the_first_ten_are_named_and_the_others_counted() -> None:
    with pytest.raises(Invalid) as caught:
        validated(Body, {f"field{i}": 1 for i in range(5000)})
    assert len(caught.value.problems) == validation.MAX_PROBLEMS == 10
    assert "4999 more" in caught.value.message
    assert len(str(error_body(caught.value))) < 2000


def test_near_names_are_looked_for_only_where_they_are_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: list[str] = []
    monkeypatch.setattr(
        validation.difflib,
        "get_close_matches",
        lambda word, *rest, **more: looked.append(word) or [],
    )
    with pytest.raises(Invalid):
        validated(Body, {f"field{i}": 1 for i in range(5000)})
    assert len(looked) == validation.MAX_PROBLEMS


def test_a_long_name_is_neither_compared_nor_repeated() -> None:
    code = """
try:
    validated(TextToImage, {"prompt": "x", "prompt" * 5_000_000: 1})
except Invalid as error:
    print(len(str(error_body(error))))
"""
    imports = """
from api.http.validation import Invalid, json_object, validated
from runnables.errors import error_body
from runnables.parameters import TextToImage
"""
    ended = limited.run(imports, code, seconds=1)
    assert ended.returncode == 0
    assert int(ended.stdout) < 2000


def test_a_prefix_moves_all_of_them() -> None:
    with pytest.raises(Invalid) as caught:
        validated(Body, {"size": 0, "other": 1})
    moved = caught.value.below(("task", "content"))
    assert [one["loc"] for one in moved.problems] == [
        ["task", "content", "size"],
        ["task", "content", "other"],
    ]
    assert moved.loc == ("task", "content", "size")


@pytest.mark.parametrize(
    ("content", "loc"),
    [
        ({"name": "\ud83d"}, ["name"]),
        ({"other": {"deep": ["a", "\udc00"]}}, ["other", "deep", 1]),
        ({"\ud83d": 1}, ["body"]),
        ({"size": float("inf")}, ["size"]),
        ({"other": [float("-inf")]}, ["other", 0]),
        ({"other": [[1] * 5000] * 5}, ["body"]),
    ],
)
def test_values_that_no_answer_could_repeat(content: Any, loc: list[object]) -> None:
    (found,) = problems(content)
    assert found["loc"] == loc


def test_json_with_too_many_values_is_not_parsed() -> None:
    body = b'{"a": [' + b"[]," * 200_000 + b"1]}"
    with pytest.raises(InvalidInput, match="too many values"):
        json_object(body)


VALUES = st.recursive(
    st.none() | st.floats() | st.text() | st.integers(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=50,
)


@settings(deadline=None)
@given(VALUES)
def test_its_work_grows_with_the_number_of_values_alone(content: Any) -> None:
    def run() -> None:
        try:
            validation.check_values(content)
        except InvalidInput:
            return

    assert steps(run) <= 50 + 30 * count(content)


def count(content: Any) -> int:
    inner = content.values() if isinstance(content, dict) else content
    return 1 + sum(map(count, inner)) if isinstance(content, dict | list) else 1
