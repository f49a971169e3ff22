"""Names of models as the WebUI's clients write them."""

from __future__ import annotations

import pytest

from api.webui import catalog
from api.webui.controlnet import Unit
from runnables.errors import UnknownName
from tests import limited


@pytest.mark.parametrize(
    ("sent", "name"),
    [
        ("one", "one"),
        (" one.safetensors [0a1b2c]\n", "one"),
        ("one  [ff]", "one"),
        ("[ff]", ""),
        ("one []", "one []"),
        ("one [xyz]", "one [xyz]"),
        ("one [ff] two", "one [ff] two"),
        ("one [a] [b]", "one [a]"),
        ("one [[ff]", "one ["),
    ],
)
def test_a_hash_behind_the_name_is_dropped(sent: str, name: str) -> None:
    assert catalog.without_hash(sent) == Unit(model=sent).native()["name"] == name


@pytest.mark.parametrize("inner", [" ", "[", "[a", " [a"])
def test_it_takes_time_in_proportion_to_its_length(inner: str) -> None:
    code = f"without_hash('x' + {inner!r} * 500_000 + 'x')"
    assert limited.run("from api.webui.catalog import without_hash\n", code).returncode == 0


def test_a_name_is_not_repeated_whole() -> None:
    with pytest.raises(UnknownName) as caught:
        catalog.model_of({"sd_model_checkpoint": "x" * 1_000_000}, ["one"], "body")
    assert len(caught.value.message) < 5000
