"""The pool's bookkeeping, with models that are names and sizes only."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from runnables.engine.memory import MemoryModel
from runnables.engine.model_pool import MOST_WAITING_OF_ONE, ModelPool, Waiting
from runnables.errors import ConfigurationError, InvalidInput, NotReady, OverCapacity
from runnables.parameters import TextToImage
from runnables.runnable import StableDiffusionRunnable
from runnables.ticket import NOTHING, Caller, Ticket
from tests.insides import engine_of

Start = Callable[..., StableDiffusionRunnable]


class Model:
    """A model without weights; its modules refer to each other in circles."""

    def __init__(self, name: str, *_: object) -> None:
        self.name, self.nbytes, self.memory, self.itself = name, 1, MemoryModel(), self
        self.extension = SimpleNamespace(nbytes=0)

    def share_memory(self) -> None:
        self.memory.adapters = self.extension.nbytes


def model(name: str, *_: object) -> Any:
    return Model(name)


def pool(budget: int) -> ModelPool:
    return ModelPool(
        model("first"),
        {name: name for name in "abc"},
        read=model,
        budget=budget,
    )


def ticket(name: str) -> Ticket:
    return Ticket(TextToImage(prompt="x", model=name))


def arrive(one: ModelPool, want: int) -> list[tuple[Waiting, Any]]:
    """Take turns until so many requests have their model."""
    out: list[tuple[Waiting, Any]] = []
    end = time.monotonic() + 300
    while len(out) < want and time.monotonic() < end:
        out += one.turn()
        time.sleep(0.001)
    return out


def load(one: ModelPool, name: str) -> None:
    """Load a model for a request that ends at once."""
    one.wait_for(ticket(name), NOTHING)
    (_,) = arrive(one, 1)
    one.leave(name)


def test_the_least_recently_used_goes_and_not_the_oldest() -> None:
    one = pool(budget=3)
    load(one, "a")
    load(one, "b")
    assert one.enter("a") is not None
    one.leave("a")
    load(one, "c")
    assert set(one.loaded) == {"first", "a", "c"}


def test_a_request_for_a_model_that_is_just_leaving_is_not_lost() -> None:
    one = pool(budget=2)
    load(one, "a")
    assert one.enter("a") is not None
    one.wait_for(ticket("b"), NOTHING)
    assert arrive_nothing(one), "a is still used"
    assert one.enter("a") is None, "nobody enters a model that is leaving"
    one.wait_for(ticket("a"), NOTHING)
    one.leave("a")
    outcomes = arrive(one, 1)
    assert [waiting.model for waiting, _ in outcomes] == ["b"]
    one.leave("b")
    outcomes = arrive(one, 1)
    assert [waiting.model for waiting, _ in outcomes] == ["a"]
    assert one.waiting == 0


def arrive_nothing(one: ModelPool) -> bool:
    """Take turns until a model waits for room; return whether no request has got a model."""
    end = time.monotonic() + 300
    got: list[Any] = []
    while one._leaving is None and time.monotonic() < end:
        got += one.turn()
        time.sleep(0.001)
    return one._leaving is not None and not got


def test_a_model_that_cannot_be_installed_leaves_nothing_behind() -> None:
    half: list[weakref.ref[Any]] = []

    def install(arriving: Any) -> None:
        half.append(weakref.ref(arriving))
        raise ConfigurationError("it does not fit")  # others are logged, and pytest keeps the log

    freed: list[bool] = []

    def free() -> float:
        freed.append(half[-1]() is None)
        return 1.0

    one = ModelPool(model("first"), {"a": "a"}, read=model, install=install, free=free)
    one.wait_for(ticket("a"), NOTHING)
    ((_, failure),) = arrive(one, 1)
    assert isinstance(failure, ConfigurationError)
    assert freed == [True], "before the memory that is left is measured"


def test_adapters_are_counted_once_when_models_come_and_go() -> None:
    """They take 30 of the 100 bytes before the other model comes, which takes 20."""
    first = model("first")
    first.extension.nbytes, first.memory.row_rate = 30, 1.0
    one = ModelPool(first, {"a": "a"}, read=model, free=lambda: 100.0 - 30 - 20)
    load(one, "a")
    assert first.memory.rows(1) == 50
    first.extension.nbytes = 0  # forgotten
    first.share_memory()
    assert first.memory.rows(1) == 80


def test_a_refused_request_leaves_its_model(start: Start) -> None:
    """Else the model could never be evicted."""
    runnable = start("sd1")
    users = engine_of(runnable)._pool._users
    with pytest.raises(InvalidInput):
        runnable.submit(TextToImage(prompt="x", height=60))
    assert users["sd1"] == 0
    runnable.drain(10)
    with pytest.raises(NotReady):
        runnable.submit(TextToImage(prompt="x"))
    assert users["sd1"] == 0


def test_one_caller_does_not_take_all_places_of_those_that_wait() -> None:
    one = pool(budget=2)
    greedy, other = Caller("greedy"), Caller("other")
    for _ in range(MOST_WAITING_OF_ONE):
        one.wait_for(Ticket(TextToImage(prompt="x", model="a"), caller=greedy), NOTHING)
    with pytest.raises(OverCapacity, match="of yours"):
        one.wait_for(Ticket(TextToImage(prompt="x", model="b"), caller=greedy), NOTHING)
    one.wait_for(Ticket(TextToImage(prompt="x", model="b"), caller=other), NOTHING)
    for _ in range(MOST_WAITING_OF_ONE + 1):
        one.wait_for(ticket("a"), NOTHING)  # without keys all callers are one
    one.close()
