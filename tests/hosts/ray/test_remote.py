"""The runnable of the ingress, with a handle that does what Ray's does, and no Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError

from hosts.ray import remote
from hosts.ray.messages import Outcome
from hosts.ray.remote import RemoteRunnable
from runnables.errors import Cancelled, DeadlineExceeded, EngineFailed, NotReady, OverCapacity
from runnables.parameters import TextToImage
from runnables.settings import Settings
from runnables.ticket import Progress

ASKED = TextToImage(prompt="sea")
STEP = Progress("drawing", 1, 2)


def models(*loaded: str) -> list[dict[str, Any]]:
    return [{"name": name, "loaded": name in loaded} for name in ("first", "second")]


def described(replica: str, *loaded: str) -> dict[str, Any]:
    return {"replica": replica, "models": models(*loaded), "capacity": 1}


class Messages:
    """What a handle with `stream=True` returns."""

    def __init__(self, made: AsyncIterator[Any]) -> None:
        self._made = made
        self.cancelled = False

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._made

    def cancel(self) -> None:
        self.cancelled = True


class Sent:
    """What `broadcast` returns; an error is what it raises, as where a replica is silent."""

    def __init__(self, ends: list[Any] | Exception) -> None:
        self._ends = ends

    def results(self, timeout_s: float) -> list[Any]:
        if isinstance(self._ends, Exception):
            raise self._ends
        return self._ends

    async def results_async(self, timeout_s: float, return_exceptions: bool) -> list[Any]:
        return self.results(timeout_s)


class Replicas:
    """A handle; a test sets what the replicas do."""

    def __init__(self) -> None:
        self.generated: Callable[[], AsyncIterator[Any]]
        self.planned: Callable[[], Any]
        self.broadcasts: dict[str, Any] = {}
        self.sent: list[Messages] = []

    def options(self, **_: object) -> Replicas:
        return self

    def broadcast(self, method: str, *_: object) -> Sent:
        made = self.broadcasts[method]
        return Sent(made() if callable(made) else made)

    def __getattr__(self, method: str) -> Any:
        class Method:
            def remote(_, *given: object) -> Any:
                if method == "generate":
                    self.sent.append(Messages(self.generated()))
                    return self.sent[-1]
                return self.planned()

        return Method()


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop on a thread of its own, which ends whatever is left in it."""
    begun: Future[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def live() -> None:
        end = asyncio.Event()
        begun.set_result((asyncio.get_running_loop(), end))
        await end.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()))
    thread.start()
    loop, end = begun.result()
    yield loop
    loop.call_soon_threadsafe(end.set)
    thread.join()


@pytest.fixture
def replicas() -> Replicas:
    return Replicas()


@pytest.fixture
def runnable(replicas: Replicas, loop: asyncio.AbstractEventLoop) -> RemoteRunnable:
    handle: Any = replicas
    made = RemoteRunnable(Settings(), handle, loop, observe=lambda *_: None)
    made._known = described("a")
    made._reported.hear("a", models("first"))
    return made


def ended(runnable: RemoteRunnable, **options: Any) -> BaseException | None:
    return runnable.submit(ASKED, **options).future.exception(timeout=300)


async def forever() -> AsyncIterator[Any]:
    yield STEP
    await asyncio.sleep(3600)


def raising(error: Exception) -> Callable[[], AsyncIterator[Any]]:
    async def messages() -> AsyncIterator[Any]:
        yield STEP
        raise error

    return messages


def test_a_request_under_way_when_the_service_stops_can_be_sent_again(
    runnable: RemoteRunnable, replicas: Replicas
) -> None:
    replicas.generated = forever
    cancelled, left = runnable.submit(ASKED), runnable.submit(ASKED)
    while left.progress is not STEP:
        time.sleep(0.001)
    cancelled.cancel()
    assert isinstance(cancelled.future.exception(timeout=300), Cancelled)
    assert [messages.cancelled for messages in replicas.sent] == [True, False], "Ray is told"
    assert not runnable.drain(0)
    runnable.close()
    assert left.future.done(), "close waits, so that jobs can be written down"
    assert isinstance(left.future.exception(), NotReady)


def test_a_request_that_is_cancelled_before_it_begins_ends(
    runnable: RemoteRunnable, replicas: Replicas, loop: asyncio.AbstractEventLoop
) -> None:
    replicas.generated = forever
    blocked, go = threading.Event(), threading.Event()
    loop.call_soon_threadsafe(lambda: (blocked.set(), go.wait()))
    blocked.wait()
    ticket = runnable.submit(ASKED)
    ticket.cancel()
    go.set()
    assert isinstance(ticket.future.exception(timeout=300), Cancelled)


@pytest.mark.parametrize("where", ["request", "settings"])
def test_a_deadline_holds_while_no_replica_is_free(
    runnable: RemoteRunnable, replicas: Replicas, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(remote, "LATE_S", 0.05)
    asked = ASKED
    if where == "request":
        asked = ASKED.model_copy(update={"deadline_s": 0.05})
    else:
        runnable.settings = Settings(request_timeout_s=0.05)
    replicas.generated = forever
    ticket = runnable.submit(asked)
    assert isinstance(ticket.future.exception(timeout=10), DeadlineExceeded)
    assert replicas.sent[0].cancelled, "Ray is told"


@pytest.mark.parametrize(
    ("error", "kind"),
    [(BackPressureError(1, 1), OverCapacity), (RayActorError(), EngineFailed)],
)
def test_what_ray_raises_becomes_an_error_of_ours(
    runnable: RemoteRunnable, replicas: Replicas, error: Exception, kind: type[Exception]
) -> None:
    replicas.generated = raising(error)
    assert type(ended(runnable)) is kind


def test_a_request_goes_on_where_a_replica_hears_of_no_previews(
    runnable: RemoteRunnable, replicas: Replicas
) -> None:
    async def messages() -> AsyncIterator[Any]:
        yield STEP
        yield Outcome(OverCapacity("reached"))

    def listen(_: Progress) -> None:
        (ticket,) = runnable._tickets
        ticket.preview_every = 3

    replicas.generated = messages
    for silence in (TimeoutError(), DeploymentUnavailableError(None)):
        replicas.broadcasts["preview"] = silence
        assert isinstance(ended(runnable, on_step=listen), OverCapacity)


def test_a_plan_waits_so_long_for_a_replica(
    runnable: RemoteRunnable, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "PLAN_S", 0.05)
    replicas.planned = lambda: asyncio.sleep(3600)
    with pytest.raises(NotReady, match="no replica"):
        runnable.plan(ASKED)


def loaded(runnable: RemoteRunnable) -> list[bool]:
    return [one["loaded"] for one in runnable.models()]


def test_models_of_replicas_that_are_gone_are_not_loaded(
    runnable: RemoteRunnable, replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "REPORTS_S", 0.0)
    runnable._reported.hear("b", models("second"))
    lost = RayActorError()
    for ends, expected in (
        (TimeoutError(), [True, True]),
        ([described("a", "first"), lost], [True, False]),
        ([described("c", "second")], [False, True]),
        (DeploymentUnavailableError(None), [False, False]),
    ):
        replicas.broadcasts["describe"] = ends
        end = time.monotonic() + 300
        while loaded(runnable) != expected and time.monotonic() < end:
            time.sleep(0.01)
        assert loaded(runnable) == expected
