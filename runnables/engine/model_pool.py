"""The models that requests choose from.

The first is loaded at the start and stays. The others are read when a request first names one, on a
thread of their own, while the engine goes on drawing; where they do not all fit, the one that was
unused for longest makes room as soon as its accepted requests are finished. Requests for a model
that is not there yet are parked here.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from runnables.engine.plan import Planner
from runnables.errors import ConfigurationError, OverCapacity, StableDiffusionError, UnknownName
from runnables.ticket import Inputs, Ticket

logger = logging.getLogger(__name__)

MOST_PARKED = 256
Outcome = Planner | StableDiffusionError


@dataclass(frozen=True, eq=False)
class Parked:
    """A request whose model is not loaded."""

    ticket: Ticket
    model: str
    inputs: Inputs


class Shelf:
    """Thread-safe; `turn` belongs to the engine's thread.

    Attributes:
        wake: called when there is something for `turn` to do.

    Args:
        first: the default, installed.
        sources: name -> what SD_MODEL takes, of the further ones.
        read: called as read(name, source): a planner with its model in main memory.
        install: brings one to the accelerator and warms it up; on the engine's thread.
        free: called when memory was given back; returns what calls may use now, in bytes.
        budget: bytes of weights that may be loaded in all.
    """

    def __init__(
        self,
        first: Planner,
        sources: Mapping[str, str] | None = None,
        *,
        read: Callable[[str, str], Planner] | None = None,
        install: Callable[[Planner], None] = lambda planner: None,
        free: Callable[[], float] | None = None,
        budget: float = float("inf"),
    ) -> None:
        self.first = first
        self._sources = {} if sources is None else sources  # it may change
        self._read = read
        self._install = install
        self._free = free
        self._budget = budget
        self._loaded: OrderedDict[str, Planner] = OrderedDict({first.name: first})
        self._users: Counter[str] = Counter()
        self._leaving: str | None = None  # takes no more requests, to make room
        self._parked: list[Parked] = []
        self._coming: tuple[str, Future[Planner]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="models")
        self.wake: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """The default first."""
        return [self.first.name, *self._sources]

    @property
    def loaded(self) -> dict[str, Planner]:
        with self._lock:
            return dict(self._loaded)

    @property
    def waiting(self) -> int:
        """Requests that are parked."""
        return len(self._parked)

    # -- any thread -------------------------------------------------------------------------

    def enter(self, model: str | None) -> Planner | None:
        """The planner of a model, kept until `leave`; None where it has to be waited for.

        Raises:
            UnknownName: with the names that there are.
        """
        name = self._name(model)
        with self._lock:
            planner = self._loaded.get(name)
            if planner is None or name == self._leaving:
                return None
            self._users[name] += 1
            self._loaded.move_to_end(name)
            return planner

    def leave(self, name: str) -> None:
        """A request that had entered has ended."""
        with self._lock:
            self._users[name] -= 1

    def park(self, ticket: Ticket, inputs: Inputs) -> None:
        """Keep a request until its model is there. Raises OverCapacity where many wait already."""
        name = self._name(ticket.parameters.model)
        with self._lock:
            if len(self._parked) >= MOST_PARKED:
                message = f"{MOST_PARKED} requests wait for models to be loaded; try again later"
                raise OverCapacity(message, retry_after=30)
            self._parked.append(Parked(ticket, name, inputs))
        self.wake()

    def _name(self, model: str | None) -> str:
        if model is not None and model not in self.names:
            known = ", ".join(self.names)
            raise UnknownName(f"there is no model {model!r}; known: {known}", loc=("model",))
        return model or self.first.name

    # -- the engine's thread ----------------------------------------------------------------

    @property
    def expecting(self) -> bool:
        """Whether a model is about to take memory."""
        return self._coming is not None

    def discard(self, ended: Callable[[Ticket], bool]) -> list[Ticket]:
        """Take out the parked requests that have ended while they waited."""
        with self._lock:
            out = [parked.ticket for parked in self._parked if ended(parked.ticket)]
            self._parked = [parked for parked in self._parked if parked.ticket not in out]
            return out

    def turn(self) -> Iterator[tuple[Parked, Outcome]]:
        """Let models come and go. Yields the requests that need wait no longer.

        Each comes with its planner, entered, or with the error that ends it.
        """
        yield from self._arrivals()
        for parked in self._take(lambda parked: parked.model in self._loaded):
            if planner := self.enter(parked.model):
                yield parked, planner
        if self._coming is None and self._parked:
            self._call_for(self._parked[0].model)

    def close(self) -> None:
        """Read no more models."""
        self._reader.shutdown(cancel_futures=True)

    def _take(self, wanted: Callable[[Parked], bool]) -> list[Parked]:
        with self._lock:
            out = [p for p in self._parked if wanted(p) and p.model != self._leaving]
            self._parked = [parked for parked in self._parked if parked not in out]
            return out

    def _call_for(self, name: str) -> None:
        assert self._read is not None
        logger.info("loading the model %s", name)
        reading = self._reader.submit(self._read, name, self._sources[name])
        self._coming = name, reading
        reading.add_done_callback(lambda _: self.wake())

    def _arrivals(self) -> Iterator[tuple[Parked, Outcome]]:
        """Put the model that has been read on the accelerator, once there is room for it."""
        if self._coming is None or not self._coming[1].done():
            return
        name, read = self._coming
        try:
            if not self._has_room(name, read.result()):
                return
            self._put_up(read.result())
        except Exception as error:
            failure = _as_failure(name, error)
            yield from ((parked, failure) for parked in self._take(lambda p: p.model == name))
        self._coming = self._leaving = None

    def _has_room(self, name: str, planner: Planner) -> bool:
        """Put the models away that are in its way; False while one of them still draws."""
        if self.first.nbytes + planner.nbytes > self._budget:
            need = (self.first.nbytes + planner.nbytes) / 1e9
            raise ConfigurationError(
                f"with {self.first.name} it needs {need:.1f} GB, over SD_MODELS_MEMORY_GB"
            )
        while sum(one.nbytes for one in self.loaded.values()) + planner.nbytes > self._budget:
            with self._lock:
                self._leaving = next(one for one in self._loaded if one != self.first.name)
                if self._users[self._leaving]:
                    return False
                del self._loaded[self._leaving]
            logger.info("put the model %s away for %s", self._leaving, name)
            gc.collect()  # modules refer to each other in circles
            self._share_memory()
        return True

    def _put_up(self, planner: Planner) -> None:
        started = time.monotonic()
        self._install(planner)
        with self._lock:
            self._loaded[planner.name] = planner
        self._share_memory()
        logger.info("%s is ready, after %.1f s", planner.name, time.monotonic() - started)

    def _share_memory(self) -> None:
        """Every model's steps may use what is free now."""
        if self._free is not None:
            free = self._free()
            for planner in self.loaded.values():
                planner.memory.budget = free


def _as_failure(name: str, error: Exception) -> StableDiffusionError:
    if isinstance(error, StableDiffusionError):
        why = error.message
    else:
        logger.error("the model %s cannot be loaded", name, exc_info=error)
        why = type(error).__name__
    return ConfigurationError(f"the model {name} cannot be loaded: {why}", loc=("model",))
