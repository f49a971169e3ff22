"""The models that requests choose from are pooled here.

The first is loaded at the start. The others are read when a request first names one, on a thread of
their own, while the engine goes on with its steps; where they do not all fit, the one of them that
was unused for longest is evicted as soon as its accepted requests are finished. The operator may
unload any model, the first included, and have those unloaded that are not used for a while: the
next request loads it again. Requests for a model that is not loaded wait here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from runnables import collector
from runnables.engine.loaded_model import LoadedModel
from runnables.errors import (
    ConfigurationError,
    NotReady,
    OverCapacity,
    StableDiffusionError,
    UnknownName,
)
from runnables.ticket import Inputs, Ticket

logger = logging.getLogger(__name__)

MOST_WAITING = 256
MOST_WAITING_OF_ONE = 64  # of a caller who has a name: others find a place too
AGAIN_S = (1.0, 10.0)  # after an unload garbage is looked for again: a thread may still hold some
Outcome = LoadedModel | StableDiffusionError


@dataclass(frozen=True, eq=False)
class Waiting:
    """This request waits for a model that is not loaded."""

    ticket: Ticket
    model: str
    inputs: Inputs


@dataclass(frozen=True, eq=False)
class Order:
    """The operator wants this model loaded, or else unloaded; `done` ends when it is."""

    model: str
    load: bool
    done: Future[None] = field(default_factory=Future)


class ModelPool:
    """The pool is thread-safe, but only the engine's thread may call `turn`.

    Attributes:
        first: the default; while it is not loaded, what is known of it without its weights.
        wake: called when there is something for `turn` to do.
        evicted: called with each model that was evicted, on the engine's thread.

    Args:
        first: the default, installed.
        sources: name -> what SD_MODEL takes, of the further ones.
        read: called as read(name, source): a model in main memory; without a source the default.
        install: brings one to the accelerator and warms it up; on the engine's thread.
        keep: called at the end with each model that is loaded, which has learnt from its steps.
        free: called when memory was freed; returns what calls may use now, in bytes.
        budget: bytes of weights that may be loaded in all.
        idle_s: seconds without a request after which a model is unloaded; 0: never.
    """

    def __init__(
        self,
        first: LoadedModel,
        sources: Mapping[str, str] | None = None,
        *,
        read: Callable[[str, str | None], LoadedModel] | None = None,
        install: Callable[[LoadedModel], None] = lambda model: None,
        keep: Callable[[LoadedModel], None] = lambda model: None,
        free: Callable[[], float] | None = None,
        budget: float = float("inf"),
        idle_s: float = 0.0,
    ) -> None:
        self.first = first
        self._sources = {} if sources is None else sources  # it may change
        self._read = read
        self._install = install
        self._keep = keep
        self._free = free
        self._budget = budget
        self._first_bytes = first.nbytes
        self._idle_s = idle_s
        self._loaded: OrderedDict[str, LoadedModel] = OrderedDict({first.name: first})
        self._users: Counter[str] = Counter()
        self._used = {first.name: time.monotonic()}
        self._collect_at: list[float] = []
        self._leaving: str | None = None  # takes no more requests, to make room
        self._orders: list[Order] = []
        self._waiting: list[Waiting] = []
        self._arriving: tuple[str, Future[LoadedModel]] | None = None
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="models")
        self.wake: Callable[[], None] = lambda: None
        self.evicted: Callable[[LoadedModel], None] = lambda model: None
        self._lock = threading.Lock()

    @property
    def names(self) -> list[str]:
        """Return the names of all models, the default first."""
        return [self.first.name, *self._sources]

    @property
    def loaded(self) -> dict[str, LoadedModel]:
        with self._lock:
            return dict(self._loaded)

    @property
    def waiting(self) -> int:
        """Return the number of requests whose model is not loaded."""
        return len(self._waiting)

    # -- any thread -------------------------------------------------------------------------

    def enter(self, named: str | None) -> LoadedModel | None:
        """Return the model of this name, kept until `leave`; None where it has to be waited for.

        Raises:
            UnknownName: the message lists the names that there are.
        """
        name = self._name(named)
        with self._lock:
            model = self._loaded.get(name)
            if model is None or self._is_leaving(name):
                return None
            self._users[name] += 1
            self._used[name] = time.monotonic()
            self._loaded.move_to_end(name)
            return model

    def leave(self, name: str) -> None:
        """Count the end of a request that had entered."""
        with self._lock:
            self._users[name] -= 1
            self._used[name] = time.monotonic()
        if self._orders:
            self.wake()

    def wait_for(self, ticket: Ticket, inputs: Inputs) -> None:
        """Keep a request until its model is there.

        Raises:
            OverCapacity: many wait already, of this caller or of all.
        """
        name, caller = self._name(ticket.parameters.model), ticket.caller.name
        with self._lock:
            own = sum(waiting.ticket.caller.name == caller for waiting in self._waiting)
            full = len(self._waiting) >= MOST_WAITING
            if full or (caller and own >= MOST_WAITING_OF_ONE):
                many = f"{MOST_WAITING} requests" if full else f"{own} requests of yours"
                message = f"{many} wait for models to be loaded; try again later"
                raise OverCapacity(message, retry_after=30)
            self._waiting.append(Waiting(ticket, name, inputs))
        self.wake()

    def order(self, name: str, *, load: bool) -> Future[None]:
        """Load or unload a model; the future ends when that is done, or with the error.

        A model that is unloaded finishes its accepted requests first. Those that arrive meanwhile
        wait, and load it again.

        Raises:
            UnknownName: the message lists the names that there are.
        """
        order = Order(self._name(name), load)
        with self._lock:
            self._orders.append(order)
        self.wake()
        return order.done

    def _is_leaving(self, name: str) -> bool:
        unloading = any(order.model == name and not order.load for order in self._orders)
        return unloading or name == self._leaving

    def _name(self, named: str | None) -> str:
        if named is not None and named not in self.names:
            known = ", ".join(self.names)
            raise UnknownName(f"there is no model {named!r}; known: {known}", loc=("model",))
        return named or self.first.name

    # -- the engine's thread ----------------------------------------------------------------

    @property
    def expecting(self) -> bool:
        """Return whether a model is about to take memory."""
        return self._arriving is not None

    def discard(self, ended: Callable[[Ticket], bool]) -> list[Ticket]:
        """Take out the waiting requests that have ended while they waited."""
        with self._lock:
            out = [waiting.ticket for waiting in self._waiting if ended(waiting.ticket)]
            self._waiting = [waiting for waiting in self._waiting if waiting.ticket not in out]
            return out

    def turn(self) -> Iterator[tuple[Waiting, Outcome]]:
        """Load and evict models, and yield the requests that need not wait any longer.

        Each comes with its model, entered, or with the error that ends it.
        """
        yield from self._arrivals()
        self._unload()
        if self._collect_at and time.monotonic() >= self._collect_at[0]:
            del self._collect_at[0]
            self._free_garbage()
        for waiting in self._take(lambda waiting: waiting.model in self._loaded):
            if model := self.enter(waiting.model):
                yield waiting, model
            else:  # the operator has it unloaded at this very moment
                with self._lock:
                    self._waiting.insert(0, waiting)
        self._end_orders(lambda order: order.load and order.model in self._loaded)
        if self._arriving is None and (name := self._next()):
            self._begin_reading(name)

    def read_aside(self, call: Callable[[], None]) -> None:
        """Run a call that reads from disk on the thread that reads models, before the next one."""
        self._reader.submit(call)

    def close(self) -> None:
        """Keep what was learnt, stop reading models, and end the orders that are open."""
        for model in self.loaded.values():
            self._keep(model)
        self._reader.shutdown(cancel_futures=True)
        self._end_orders(lambda order: True, NotReady("the service has stopped"))

    def _take(self, wanted: Callable[[Waiting], bool]) -> list[Waiting]:
        with self._lock:
            out = [p for p in self._waiting if wanted(p) and not self._is_leaving(p.model)]
            self._waiting = [waiting for waiting in self._waiting if waiting not in out]
            return out

    def _unload(self) -> None:
        """Evict the models that nobody uses and that the operator wants unloaded, or are idle."""
        for name in list(self.loaded):  # names only: the models must be free to go
            with self._lock:
                idle = time.monotonic() - self._used[name] > self._idle_s > 0
                wanted = idle or (self._is_leaving(name) and name != self._leaving)
            if wanted:
                self._evict(name, "is idle" if idle else "the operator asked for it")
        self._end_orders(lambda order: not order.load and order.model not in self._loaded)

    def _end_orders(
        self, ended: Callable[[Order], bool], error: StableDiffusionError | None = None
    ) -> None:
        with self._lock:
            done = [order for order in self._orders if ended(order)]
            self._orders = [order for order in self._orders if order not in done]
        for order in done:
            if error:
                order.done.set_exception(error)
            else:
                order.done.set_result(None)

    def _next(self) -> str | None:
        """Return the model that is to be read next: the one that is waited for longest."""
        wanted = [waiting.model for waiting in self._waiting]
        wanted += [order.model for order in self._orders if order.load]
        return next((name for name in wanted if name not in self._loaded), None)

    def _begin_reading(self, name: str) -> None:
        logger.info("loading the model %s", name)
        reading = self._reader.submit(self._read_from_source, name)
        self._arriving = name, reading
        reading.add_done_callback(lambda _: self.wake())

    def _read_from_source(self, name: str) -> LoadedModel:
        assert self._read is not None
        return self._read(name, None if name == self.first.name else self._sources[name])

    def _arrivals(self) -> Iterator[tuple[Waiting, Outcome]]:
        """Put the model that has been read on the accelerator, once there is room for it."""
        if self._arriving is None or not self._arriving[1].done():
            return
        name, read = self._arriving
        failure = None
        try:
            if not self._has_room(name, read.result()):
                return
            self._add(read.result())
        except Exception as error:
            failure = _as_failure(name, error)
        self._arriving = self._leaving = None
        if failure is not None:
            yield from ((waiting, failure) for waiting in self._take(lambda p: p.model == name))
            self._end_orders(lambda order: order.load and order.model == name, failure)
            del read  # half of it may be on the accelerator
            self._free_garbage()

    def _has_room(self, name: str, model: LoadedModel) -> bool:
        """Evict the models that are in its way; return False while one of them is still used."""
        kept = 0 if name == self.first.name else self._first_bytes
        if kept + model.nbytes > self._budget:
            need = (kept + model.nbytes) / 1e9
            raise ConfigurationError(
                f"with {self.first.name} it needs {need:.1f} GB, over SD_MODELS_MEMORY_GB"
            )
        while sum(one.nbytes for one in self.loaded.values()) + model.nbytes > self._budget:
            with self._lock:
                self._leaving = next(one for one in self._loaded if one != self.first.name)
            if not self._evict(self._leaving, f"{name} needs the room"):
                return False
        return True

    def _evict(self, name: str, why: str) -> bool:
        """Free a model's memory; return False where a request still uses it."""
        with self._lock:
            if self._users[name]:
                return False
            model = self._loaded.pop(name)
        if model is self.first:
            self.first = model.outline()
        self.evicted(model)
        del model
        self._free_garbage()
        self._collect_at = [time.monotonic() + seconds for seconds in AGAIN_S]
        logger.info("unloaded the model %s: %s", name, why)
        return True

    def _add(self, model: LoadedModel) -> None:
        started = time.monotonic()
        self._install(model)
        with self._lock:
            self._loaded[model.name] = model
            self._used[model.name] = time.monotonic()
            if model.name == self.first.name:
                self.first = model
        self._share_memory()
        logger.info("%s is ready, after %.1f s", model.name, time.monotonic() - started)

    def _free_garbage(self) -> None:
        """Free what is left of a model that is gone."""
        collector.collect()  # modules refer to each other in circles
        self._share_memory()

    def _share_memory(self) -> None:
        """Set what every model's steps may use to the memory that is free now.

        Its own LoRAs and ControlNets, which are loaded already, count against a model's budget.
        """
        if self._free is not None:
            free = self._free()
            for model in self.loaded.values():
                model.share_memory()
                model.memory.budget = free + model.memory.adapters


def _as_failure(name: str, error: Exception) -> StableDiffusionError:
    if isinstance(error, StableDiffusionError):
        why = error.message
    else:
        logger.error("the model %s cannot be loaded", name, exc_info=error)
        why = type(error).__name__
    return ConfigurationError(f"the model {name} cannot be loaded: {why}", loc=("model",))
