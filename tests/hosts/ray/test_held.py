"""A further model stays while somebody draws with it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from hosts.ray.multiplexed import Gone, Held, named, unnamed
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import Plan


def test_it_goes_once_its_last_user_has_finished(
    start: Callable[..., StableDiffusionRunnable],
) -> None:
    runnable = start("sd1", prompt_cache=0)  # of this test alone: it is closed
    held, asked = Held("mine", runnable), TextToImage(prompt="sea", num_inference_steps=2)
    assert held.describe()["name"] == "mine"
    going = threading.Thread(target=held.__del__)
    with held.use() as used:
        going.start()
        assert used.txt2img(asked).images
        assert going.is_alive()
    going.join()
    assert not runnable.ready
    with pytest.raises(Gone), held.use():
        pass


def test_results_carry_the_name_that_was_asked_for() -> None:
    asked = TextToImage(prompt="sea", model="mine")
    assert unnamed(asked).model is None
    plan = Plan(asked.model_copy(update={"model": "folder"}), 2, 0.1)
    assert named(plan, "mine").parameters.model == "mine"
    assert named(plan, "") is plan
