"""The query of `GET /imagine`."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from api.native import imagine
from runnables.errors import InvalidInput


def read(query: str) -> None:
    imagine.read(Request({"type": "http", "query_string": query.encode(), "headers": []}))


def test_it_answers_a_png() -> None:
    read("prompt=x&output_format=png")
    with pytest.raises(InvalidInput, match="PNG") as caught:
        read("prompt=x&output_format=jpeg")
    assert caught.value.loc == ("output_format",)
