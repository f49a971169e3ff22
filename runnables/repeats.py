"""Exact repeats are answered without generating: from a finished result, or from one under way.

A result is decided by the complete parameters with an explicit seed, the pictures, the loaded model
and the files that the request names; settings are the same for the whole process. Results are kept
as the engine ends them, after the safety checker and before a watermark or a signature.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from runnables.checkpoints.library import identity
from runnables.errors import Cancelled
from runnables.parameters import AnyParameters, Priority, TextToImage, Upscale
from runnables.settings import Settings
from runnables.ticket import Cache, Caller, Inputs, Plan, Progress, Result, Ticket, settle

if TYPE_CHECKING:
    from concurrent.futures import Future

    from PIL.Image import Image

    from runnables.engine.engine import Engine

#: a digest of all that decides a result, and the priority: a lower one must not hold up a higher
Place = tuple[str, Priority]
PIXEL = 4  # bytes of an RGB pixel in Pillow's memory
CHARACTER = 8  # at most: four, and as many for its UTF-8
OBJECTS = 4096  # bytes of a result beside its pictures and texts
LOCKS = 64  # of two requests that are admitted at once, one in so many waits for the other
#: parameters that do not change what is generated
NOT_ABOUT_RESULT = {"priority", "deadline_s", "output_format"}


class Member(Ticket):
    """A member is a caller's ticket, and ends by itself when the caller cancels it."""

    def cancel(self) -> None:
        """End with Cancelled; what other members wait for goes on."""
        super().cancel()
        settle(self, Cancelled("the request was cancelled"))


class Shared(Ticket):
    """The engine works on this ticket, for one member or more.

    Attributes:
        members: the tickets that wait for it, with their plans; the one that came first pays.
    """

    def __init__(self, parameters: AnyParameters, submitted: float, caller: Caller) -> None:
        self.members: list[tuple[Ticket, Plan]] = []
        super().__init__(parameters, submitted=submitted, caller=caller)

    @property
    def progress(self) -> Progress:
        """Return how far it is; the engine sets it, and so it reaches the members."""
        return self._progress

    @progress.setter
    def progress(self, progress: Progress) -> None:
        self._progress = progress
        for member, _ in list(self.members):
            member.progress = progress
            if progress.state == "drawing" and member.on_step is not None:
                member.on_step(progress)
        self.preview_every = math.gcd(*(member.preview_every for member, _ in self.members))


class Repeats:
    """Repeats stand before an engine and pass on to it what has to be generated; thread-safe.

    Attributes:
        ticket: the class of the tickets that it takes.

    Args:
        settings: `repeats_mb` bounds the finished results that are kept.
    """

    ticket = Member

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._room = settings.repeats_mb * 1e6
        self._kept: OrderedDict[str, Result] = OrderedDict()  # the least recently used first
        self._used = 0  # bytes of those
        self._under_way: dict[Place, Shared] = {}
        self._admitting = [threading.Lock() for _ in range(LOCKS)]
        self._lock = threading.Lock()

    def submit(self, member: Ticket, inputs: Inputs) -> None:
        """Submit a request, as `Engine.submit`; one that is no exact repeat goes on to the engine.

        Raises:
            InvalidInput, OverCapacity, NotReady, EngineFailed: refused, the future is left alone.
        """
        plan = self._plan(member, inputs)
        if plan is None or plan.model is None:
            self._engine.submit(member, inputs)
            return
        key = self._key(plan, inputs)
        with self._admitting[hash(key) % LOCKS]:  # or two that come together would miss each other
            if not self._answer(key, member, plan):
                self._generate(key, member, plan, inputs)

    def _plan(self, member: Ticket, inputs: Inputs) -> Plan | None:
        """Return the plan of a request that another one can repeat, and None for others."""
        requested = member.parameters
        repeatable = isinstance(requested, Upscale) or requested.seed is not None
        return self._engine.plan(member, inputs) if repeatable and self._engine.accepting else None

    def _answer(self, key: str, member: Ticket, plan: Plan) -> bool:
        """Answer from a finished result, or join one under way; return whether there was one."""
        place = (key, member.parameters.priority)
        with self._lock:
            result, shared = self._kept.get(key), self._under_way.get(place)
            if result is not None:
                self._kept.move_to_end(key)
            elif shared is not None:
                _add(shared, member, plan)
                self._arrange(shared)
        if result is not None:
            member.future.set_running_or_notify_cancel()
            member.progress = replace(member.progress, steps=plan.steps)
            settle(member, _repeated(result, member, plan, "hit"))
        elif shared is not None:
            self._follow(place, member)
        return result is not None or shared is not None

    def _generate(self, key: str, member: Ticket, plan: Plan, inputs: Inputs) -> None:
        """Have the engine generate, for this member and for those that will join."""
        place = (key, member.parameters.priority)
        shared = Shared(member.parameters, member.submitted, member.caller)
        _add(shared, member, plan)
        self._engine.submit(shared, inputs)
        with self._lock:
            self._under_way[place] = shared
        self._follow(place, member)
        shared.future.add_done_callback(partial(self._ended, place))

    def forget(self) -> None:
        """Forget the finished results."""
        with self._lock:
            self._kept.clear()
            self._used = 0

    # -- members ----------------------------------------------------------------------------

    def _follow(self, place: Place, member: Ticket) -> None:
        """Have a member's deadline kept, and see that it leaves when it ends."""
        self._engine.watch(member)
        id = member.id  # not the member: its future would hold it for ever
        member.future.add_done_callback(lambda _: self._leave(place, id))

    def _leave(self, place: Place, id: str) -> None:
        """Let a member that has ended go; what nobody waits for any more is cancelled."""
        with self._lock:
            shared = self._under_way.get(place)
            left = [one for one in shared.members if one[0].id != id] if shared else []
            if shared is None or len(left) == len(shared.members):
                return
            shared.members = left
            if left:
                self._arrange(shared)
            else:
                shared.cancel()
                del self._under_way[place]

    def _arrange(self, shared: Shared) -> None:
        """Give it the latest deadline of its members, and the caller that was served least.

        So no caller waits longer than without the others, and none is charged for more than that.
        """
        members = [member for member, _ in shared.members]
        default = self._settings.request_timeout_s
        expires = max(one.submitted + (one.parameters.deadline_s or default) for one in members)
        allowed = {"deadline_s": expires - shared.submitted}
        shared.parameters = shared.parameters.model_copy(update=allowed)
        shared.caller = min((one.caller for one in members), key=self._engine.served)

    # -- results ----------------------------------------------------------------------------

    def _ended(self, place: Place, future: Future[Result]) -> None:
        """End the members as the engine has ended their generation; keep a result."""
        error = future.exception()
        with self._lock:
            shared = self._under_way.get(place)
            if shared is None or shared.future is not future:  # nobody waits for it any more
                return
            del self._under_way[place]
            if error is None:
                self._keep(place[0], future.result())
        for index, (member, plan) in enumerate(shared.members):
            if error is not None:
                settle(member, copy.copy(error))
            elif index:
                settle(member, _repeated(future.result(), member, plan, "joined"))
            else:
                settle(member, replace(future.result(), parameters=plan.parameters))

    def _keep(self, key: str, result: Result) -> None:
        """Keep a result; those that were not used for longest make room."""
        if _bytes(result) > self._room:
            return
        if replaced := self._kept.pop(key, None):
            self._used -= _bytes(replaced)
        self._kept[key] = result
        self._used += _bytes(result)
        while self._used > self._room:
            self._used -= _bytes(self._kept.popitem(last=False)[1])

    def _key(self, plan: Plan, inputs: Inputs) -> str:
        """Return a digest of all that decides a result."""
        parameters = plan.parameters
        pictures = [inputs.image, inputs.mask, *inputs.controls]
        decides = [
            plan.model,
            parameters.task,
            parameters.model_dump(mode="json", exclude=NOT_ABOUT_RESULT),
            [_digest(picture) for picture in pictures],
            [identity(file) for file in _files(parameters, self._settings)],
        ]
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()


def _add(shared: Shared, member: Ticket, plan: Plan) -> None:
    member.future.set_running_or_notify_cancel()  # from here on it is ended here, or by the watch
    shared.members.append((member, plan))
    member.progress = shared.progress


def _repeated(result: Result, member: Ticket, plan: Plan, how: Cache) -> Result:
    """Return a result for a request that has cost the machine nothing."""
    waited = {**dict.fromkeys(result.timings, 0.0), "queue": time.monotonic() - member.submitted}
    return replace(
        result,
        parameters=plan.parameters,
        timings=waited,
        cost_units=0.0,
        cache=how,
    )


def _bytes(result: Result) -> int:
    """Return about what a result takes of memory: its pictures, texts and objects."""
    pictures = sum(PIXEL * one.image.width * one.image.height for one in result.images)
    texts = sum(len(value) for _, value in result.parameters if isinstance(value, str))
    return pictures + CHARACTER * texts + OBJECTS


def _digest(picture: Image | None) -> str | None:
    if picture is None:
        return None
    pixels = hashlib.sha256(picture.tobytes()).hexdigest()
    return f"{picture.mode} {picture.size} {pixels}"


def _files(parameters: AnyParameters, settings: Settings) -> Iterator[Path]:
    """Return the files and folders that a request names."""
    if isinstance(parameters, Upscale):
        yield from _inside(settings.upscaler_dir, [parameters.upscaler])
        return
    loras = [f"{use.name}.safetensors" for use in parameters.loras]
    yield from _inside(settings.lora_dir, loras)
    words = [f"{name}.safetensors" for name in parameters.embeddings]
    yield from _inside(settings.embeddings_dir, words)
    yield from _inside(settings.controlnet_dir, [use.name for use in parameters.controlnets])
    if isinstance(parameters, TextToImage) and parameters.hires:
        yield from _inside(settings.upscaler_dir, [parameters.hires.upscaler])


def _inside(folder: str | None, names: Iterable[str]) -> Iterator[Path]:
    yield from (Path(folder).expanduser() / name for name in names if folder)
