"""What the front knows about models, without Ray."""

from __future__ import annotations

import pytest

from hosts.ray.served import Served
from runnables.errors import ConfigurationError, UnknownName
from runnables.parameters import TextToImage


@pytest.fixture
def served() -> Served:
    served = Served(["small", "large"])
    served.begin([{"name": "embedded", "height": 128, "loaded": True}])
    return served


def test_a_model_is_loaded_while_a_drawer_tells_so(served: Served) -> None:
    assert [one["loaded"] for one in served.describe()] == [True, False, False]
    served.hear("a", [{"name": "small", "height": 64}])
    served.hear("b", [{"name": "small", "height": 64}, {"name": "large", "height": 512}])
    assert [one["loaded"] for one in served.describe()] == [True, True, True]
    served.hear("b", [])
    assert [one["loaded"] for one in served.describe()] == [True, True, False]
    assert served.describe()[2]["height"] == 512, "what was told once is still true"
    served.forget_held()
    assert [one["loaded"] for one in served.describe()] == [True, False, False]


@pytest.mark.parametrize(("model", "further"), [(None, ""), ("embedded", ""), ("large", "large")])
def test_a_name_chooses_a_model(served: Served, model: str | None, further: str) -> None:
    assert served.further(TextToImage(prompt="sea", model=model)) == further


def test_an_unknown_name_is_refused(served: Served) -> None:
    with pytest.raises(UnknownName, match="known: embedded, small, large") as caught:
        served.further(TextToImage(prompt="sea", model="other"))
    assert caught.value.loc == ("model",)


def test_two_models_of_one_name_stop_the_start() -> None:
    with pytest.raises(ConfigurationError, match="embedded is served already"):
        Served(["embedded"]).begin([{"name": "embedded"}])


def test_models_of_the_settings_are_each_drawers_own() -> None:
    served = Served(["small"])
    served.begin([{"name": "embedded", "loaded": True}, {"name": "other", "loaded": False}])
    assert served.further(TextToImage(prompt="sea", model="other")) == ""
    assert [one["name"] for one in served.describe()] == ["embedded", "other", "small"]
    served.hear("a", [{"name": "other", "loaded": True}])
    assert [one["loaded"] for one in served.describe()] == [True, True, False]
