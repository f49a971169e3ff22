"""Whatever the engine's thread meets, every request ends, and the service goes on or says so."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
import torch
from PIL import Image

from runnables.accelerators.cpu.device import Cpu
from runnables.engine import engine as engines
from runnables.engine import loop as loops
from runnables.engine.batch import Batch
from runnables.engine.watch import LATE_S, SLOWER, Watch, computes
from runnables.errors import (
    Cancelled,
    DeadlineExceeded,
    EngineFailed,
    GenerationFailed,
    NotReady,
    StableDiffusionError,
)
from runnables.parameters import ControlNetUse, Hires, ImageToImage, TextToImage, Upscale
from runnables.runnable import StableDiffusionRunnable
from runnables.settings import Settings
from runnables.ticket import Inputs, Ticket, settle
from tests.insides import engine_of
from tests.long import LONG, long
from tests.runnables.engine.virtual import VirtualEngine

Start = Callable[..., StableDiffusionRunnable]
RUNNABLES = str(Path(engines.__file__).parents[1])
Place = tuple[CodeType, int]  # and the line, of a call of torch


def wanted(steps: int = 3, **options: object) -> TextToImage:
    given = {"prompt": "a cat", "num_inference_steps": steps, "seed": 1, **options}
    return TextToImage(**given)  # type: ignore[arg-type]


def until(condition: Callable[[], bool], timeout: float = 300) -> bool:
    end = time.monotonic() + timeout
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


# -- the watch alone ----------------------------------------------------------------------------


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class Watched:
    """A watch whose thread does nothing until it is told to end."""

    def __init__(self, safe: bool = True) -> None:
        self.clock, self.end, self.forgotten = Clock(), threading.Event(), 0
        self.error: StableDiffusionError | None = None
        self.started = 0
        self.watch = Watch(
            self._run,
            forget=self._forget,
            safe=lambda: safe,
            over=lambda ticket: self.error,
            stall_s=10.0,
            clock=self.clock,
        )
        self.watch._look_on = lambda: self.watch._closing.wait()  # type: ignore[method-assign]
        self.watch._looking = threading.Thread(target=self.watch._look_on, daemon=True)
        self.watch.start()

    def _run(self) -> None:
        self.started += 1
        self.end.wait(300)

    def _forget(self) -> None:
        self.forgotten += 1

    def die(self) -> None:
        self.end.set()
        self.watch._thread.join(300)
        self.end.clear()

    def ticket(self) -> Ticket:
        ticket = Ticket(wanted())
        ticket.future.set_running_or_notify_cancel()
        self.watch.accept(ticket)
        return ticket


@pytest.fixture
def watched() -> Iterator[Callable[..., Watched]]:
    made: list[Watched] = []

    def make(safe: bool = True) -> Watched:
        made.append(Watched(safe))
        return made[-1]

    yield make
    for one in made:
        one.end.set()
        one.watch.close(10, NotReady("closed"))


def test_what_the_engine_leaves_open_is_ended_a_little_later(
    watched: Callable[..., Watched],
) -> None:
    one = watched()
    ticket = one.ticket()
    one.watch.look()
    one.error = DeadlineExceeded("late")
    one.watch.look()
    one.clock.now += 0.9 * LATE_S
    one.watch.look()
    assert not ticket.future.done(), "the engine's thread has its chance first"
    one.clock.now += 0.2 * LATE_S
    one.watch.look()
    assert ticket.future.exception(0) is one.error
    assert one.watch.open == 0


def test_a_thread_that_stands_still(watched: Callable[..., Watched]) -> None:
    one = watched()
    one.watch.beat(1.0)
    ticket = one.ticket()
    one.clock.now += 0.99 * SLOWER
    one.watch.look()
    assert one.watch.alive and not ticket.future.done(), "a slow step has its time"
    one.clock.now += 0.02 * SLOWER
    one.watch.look()
    assert not one.watch.alive
    assert isinstance(ticket.future.exception(0), EngineFailed)
    one.watch.beat()
    assert one.watch.alive, "it went on after all"
    one.clock.now += 11
    assert not one.watch.alive, "without an estimate stall_s counts"
    assert one.started == 1, "a thread that hangs still has the models: no second one is started"


def test_a_dead_thread_is_started_again_once(watched: Callable[..., Watched]) -> None:
    one = watched()
    first = one.ticket()
    one.die()
    assert not one.watch.alive
    one.watch.look()
    assert isinstance(first.future.exception(0), EngineFailed)
    assert until(lambda: one.started == 2)
    assert one.watch.alive and one.forgotten == 1
    second = one.ticket()
    one.die()
    one.watch.look()
    assert isinstance(second.future.exception(0), EngineFailed)
    assert not one.watch.alive and (one.started, one.forgotten) == (2, 1)


def test_no_restart_where_the_device_is_lost(watched: Callable[..., Watched]) -> None:
    one = watched(safe=False)
    one.die()
    one.watch.look()
    assert not one.watch.alive and one.started == 1


def test_a_watch_that_has_died_is_no_sign_of_life(watched: Callable[..., Watched]) -> None:
    one = watched()
    one.watch._closing.set()
    one.watch._looking.join(10)
    one.watch._closing.clear()
    assert not one.watch.alive


def test_two_threads_end_a_ticket_once() -> None:
    ticket = Ticket(wanted())
    ticket.future.done = lambda: False  # type: ignore[method-assign]  # both have looked
    settle(ticket, Cancelled("first"))
    settle(ticket, NotReady("second"))
    assert isinstance(ticket.future.exception(0), Cancelled)


# -- the engine ---------------------------------------------------------------------------------


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Steps wait while this event is cleared."""
    go, original = threading.Event(), Batch.step
    go.set()

    def step(batch: Batch) -> object:
        go.wait(300)
        return original(batch)

    monkeypatch.setattr(Batch, "step", step)
    yield go
    go.set()


def test_deadlines_and_cancels_hold_while_a_step_never_returns(
    start: Start, stuck: threading.Event
) -> None:
    runnable = start("sd1", max_queue_s=3600)
    stuck.clear()
    late = runnable.submit(wanted(deadline_s=0.5))
    cancelled = runnable.submit(wanted())
    cancelled.cancel()
    assert isinstance(late.future.exception(timeout=300), DeadlineExceeded)
    assert isinstance(cancelled.future.exception(timeout=300), Cancelled)
    stuck.set()
    assert runnable.txt2img(wanted()).images
    assert until(lambda: runnable.load().active == 0)


def test_a_step_that_stands_still_is_told_and_forgiven(
    start: Start, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    runnable = start("sd1", max_queue_s=3600)
    watch = engine_of(runnable)._watch
    monkeypatch.setattr("runnables.engine.watch.SLOWER", 0.0)
    stuck.clear()
    ticket = runnable.submit(wanted())
    monkeypatch.setattr(watch, "_stall_s", 0.5)  # an idle engine is as quiet
    assert isinstance(ticket.future.exception(timeout=300), EngineFailed)
    assert not runnable.alive and not runnable.ready
    with pytest.raises(EngineFailed):
        runnable.submit(wanted())
    monkeypatch.setattr(watch, "_stall_s", 300.0)
    stuck.set()
    assert until(lambda: runnable.alive)
    assert runnable.txt2img(wanted()).images


def test_a_stop_does_not_wait_for_ever(
    start: Start, stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "CLOSE_S", 0.1)
    runnable = start("sd1", max_queue_s=3600)
    stuck.clear()
    ticket = runnable.submit(wanted())
    runnable.close()
    assert isinstance(ticket.future.exception(timeout=0), NotReady)


def kill(runnable: StableDiffusionRunnable) -> None:
    """End the engine's thread wherever it is."""
    thread = engine_of(runnable)._watch._thread
    assert thread.ident
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(SystemExit)
    )
    thread.join(300)
    assert not thread.is_alive()


def test_a_killed_thread_is_started_once_and_then_told(start: Start) -> None:
    runnable = start("sd1", max_queue_s=3600)
    for times in (1, 2):
        tickets = [runnable.submit(wanted(150)) for _ in range(3)]
        kill(runnable)
        for ticket in tickets:
            assert isinstance(ticket.future.exception(timeout=300), EngineFailed)
        if times == 1:
            assert until(lambda: runnable.ready)
            assert runnable.txt2img(wanted()).images
    assert not runnable.alive
    with pytest.raises(EngineFailed):
        runnable.submit(wanted())


def test_who_comes_between_the_end_of_all_and_the_restart_is_told(
    tiny_model: Callable[[str], Path],
) -> None:
    """One waits in the queue, one for its model; the engine's thread is dead."""
    engine = VirtualEngine(tiny_model("sd1"))
    engine.engine._pool._sources = {"other": "nowhere"}
    tickets = [engine.submit(wanted()), engine.submit(wanted(model="other"))]
    engine.engine._loop.drop_all()
    for ticket in tickets:
        assert isinstance(ticket.future.exception(timeout=0), EngineFailed)
    assert engine.engine.waiting == 0


def test_a_lost_device_is_told(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    runnable = start("sd1", max_queue_s=3600)

    def step(batch: Batch) -> object:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    monkeypatch.setattr(Batch, "step", step)
    monkeypatch.setattr(loops, "computes", lambda device: False)
    ticket = runnable.submit(wanted())
    assert isinstance(ticket.future.exception(timeout=300), GenerationFailed)
    assert until(lambda: not runnable.alive)


def test_a_device_that_raises_does_not_compute() -> None:
    assert computes(torch.device("cpu"))
    assert not computes(torch.device("meta"))  # it has no values to read


def test_out_of_memory_on_the_cpu_is_recognised() -> None:
    cpu = Cpu(Settings())
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert cpu.is_out_of_memory(caught.value)
    assert cpu.is_out_of_memory(MemoryError())
    assert not cpu.is_out_of_memory(RuntimeError("broken kernel"))


def test_no_memory_at_the_end_of_an_enlargement(
    start: Start, photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error is raised by what is done with the picture, when there is no tile left."""

    def no_memory(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("runnables.engine.enlarge.GeneratedImage", no_memory)
    runnable = start("sd1", max_queue_s=3600)
    neighbour = runnable.submit(wanted(20))
    with pytest.raises(GenerationFailed, match="out of memory"):
        runnable.upscale(Upscale(), photo)
    assert neighbour.future.result(timeout=300).images
    assert runnable.alive


def test_a_callback_that_raises_costs_no_image(start: Start, photo: Image.Image) -> None:
    def broken(_: object) -> None:
        raise RuntimeError("broken callback")

    runnable = start("sd1", max_queue_s=3600)
    assert runnable.submit(wanted(), on_step=broken).future.result(timeout=300).images
    enlarging = runnable.submit(Upscale(), Inputs(photo), on_step=broken)
    assert enlarging.future.result(timeout=300).images


# -- an error in everything that the engine's thread calls --------------------------------------


class Injection:
    """Raises an error on the engine's thread: in a call of a function of ours, or of one of torch.

    A profile function that raises does so in the frame that is being called, or in the one that
    calls what is written in C, and is removed.

    Args:
        event: "call", of functions of ours, or "c_call", of torch's in lines of ours: each of them
            may allocate memory.
    """

    def __init__(self, event: str = "call") -> None:
        self.seen: dict[Place, None] = {}
        self.target: Place | None = None
        self.error: type[Exception] = RuntimeError
        self.recording = False
        self._event = event

    def __call__(self, frame: FrameType, event: str, called: Any) -> None:
        code = frame.f_code
        if event != self._event or not code.co_filename.startswith(RUNNABLES):
            return
        if event == "c_call" and not _is_of_torch(called):
            return
        place = code, frame.f_lineno if event == "c_call" else 0
        if self.recording:
            self.seen[place] = None
        elif place == self.target:
            self.target = None
            raise self.error("injected")

    def around(self, beat: Callable[..., None]) -> Callable[..., None]:
        def installed(watch: Watch, *expected: float) -> None:
            if sys.getprofile() is None and threading.current_thread().name == "engine":
                sys.setprofile(self)
            beat(watch, *expected)

        return installed


def _is_of_torch(called: Any) -> bool:
    """Return whether it is a function of torch, or a tensor's method."""
    owner = getattr(called, "__self__", None)
    return isinstance(owner, torch.Tensor) or "torch" in f"{owner} {called.__module__}"


def all_kinds(runnable: StableDiffusionRunnable, photo: Image.Image) -> list[Ticket]:
    """Submit requests of every kind at once."""

    def submit(*args: Any, **options: Any) -> Ticket:
        """Submit as a patient client: an earlier one of these may have ended the thread."""
        while True:
            try:
                return runnable.submit(*args, **options)
            except EngineFailed:
                assert until(lambda: runnable.ready)

    one = ControlNetUse(name="one")
    tickets = [
        submit(wanted(num_images_per_prompt=2), preview_every=1),
        submit(wanted(hires=Hires(upscaler="lanczos"))),
        submit(wanted(hires=Hires())),
        submit(wanted(controlnets=[one]), Inputs(controls=(photo,))),
        submit(wanted(deep_cache_interval=2)),
        submit(ImageToImage(prompt="a dog", num_inference_steps=4), Inputs(photo)),
        submit(Upscale(), Inputs(photo)),
        submit(wanted(150)),
    ]
    tickets[-1].cancel()
    return tickets


def all_end(tickets: Sequence[Ticket], runnable: StableDiffusionRunnable) -> bool:
    """Wait until all have ended, or the engine has nothing to do and some have not."""

    def ended() -> bool:
        return all(ticket.future.done() for ticket in tickets)

    return until(lambda: ended() or runnable.load()[:2] == (0, 0), 120) and until(ended, 60)


@pytest.mark.parametrize(
    ("event", "error", "least"),
    [
        pytest.param("call", MemoryError, 150, id="methods"),
        pytest.param("call", RuntimeError, 150, id="methods, another error", marks=long),
        pytest.param("c_call", MemoryError, 50, id="calls of torch"),
    ],
)
def test_an_error_in_everything_that_the_engines_thread_calls(
    start: Start,
    photo: Image.Image,
    controlnets: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    event: str,
    error: type[Exception],
    least: int,
) -> None:
    inject = Injection(event)
    monkeypatch.setattr(Watch, "beat", inject.around(Watch.beat))
    runnable = start(
        "sd1", max_queue_s=3600, controlnet_dir=str(controlnets("sd1")), prompt_cache=0
    )
    watch = engine_of(runnable)._watch
    inject.recording, inject.error = True, error
    for ticket in all_kinds(runnable, photo):
        ticket.future.exception(timeout=300)
    inject.recording = False
    assert len(inject.seen) > least
    died: list[str] = []
    lost: list[str] = []
    every = 1 if LONG else 20
    for place in [*inject.seen][::every]:
        code, line = place
        name = f"{Path(code.co_filename).stem}.{code.co_qualname}" + (f":{line}" if line else "")
        watch._restarts, inject.target = 1, place
        tickets = all_kinds(runnable, photo)
        if not all_end(tickets, runnable):
            lost.append(name)  # the engine has nothing to do, and a request is open
            for ticket in tickets:
                ticket.cancel()
        ends = [ticket.future.exception(timeout=300) for ticket in tickets]
        inject.target = None
        if any(isinstance(end, EngineFailed) for end in ends):
            died.append(name)
        assert until(lambda: runnable.ready), f"after an error in {name}"
        assert runnable.txt2img(wanted(1)).images, f"after an error in {name}"
    print(f"{len(inject.seen)} places; the thread was started again after {died}")
    assert not lost
    assert len(died) < 5
