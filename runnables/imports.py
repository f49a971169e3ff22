"""A start imports of transformers and diffusers what serving needs.

Both libraries also import what only training, compiling or other models need, which is a third of
the seconds of a start. What is left out here is imported by whoever asks for it later.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

COMPILER = "torch._dynamo"
#: the compiler's decorators that mean nothing where nothing is compiled
MARKS = ("allow_in_graph", "assume_constant_result", "disable")
#: only some samplers use the first two, and only several processes the third; the others import
#: the models of all families
LATE = (
    "scipy.stats",
    "scipy.integrate",
    "torch.distributed._functional_collectives",
    "diffusers.models.autoencoders",
    "diffusers.models.transformers",
    "diffusers.models.unets",
)


@contextmanager
def trimmed(*, compiles: bool, quantizes: bool) -> Iterator[None]:
    """Import transformers and diffusers without what this process does not need.

    The compiler stays away for as long as the context is open: the first model that is read asks
    for its marks, too. This does nothing where either library is imported already. Other threads
    must not import meanwhile.

    Args:
        compiles: whether models are compiled in this process; torch.compile then needs the marks.
        quantizes: whether torchao's tensors are used, which both libraries must know then.
    """
    if {"transformers", "diffusers"} & sys.modules.keys():
        yield
        return
    unused = ("peft",) if quantizes else ("peft", "torchao")
    with unmarked(compiles or quantizes):  # torchao imports the compiler
        with hidden(*unused):
            with hidden("scipy"):  # transformers has losses that use it
                _import_transformers()
            _import_diffusers()
        yield


def _import_transformers() -> None:
    asked = importlib.import_module("transformers.utils.import_utils")
    distributed = importlib.import_module("torch.distributed")
    with replaced(distributed, "is_available", lambda: False):
        asked.is_torch_distributed_available()  # it keeps the answer: no model is sharded here
    postpone("transformers.models")  # its own code reads the source of every model
    importlib.import_module("transformers.modeling_utils")


def _import_diffusers() -> None:
    # it reads the list of every installed file, for quantisers that are not used here
    with replaced(importlib.metadata, "packages_distributions", dict):
        importlib.import_module("diffusers.utils.import_utils")
    for name in LATE:
        postpone(name)
    importlib.import_module("diffusers.hooks")


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Give an attribute another value for a while."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def hidden(*names: str) -> Iterator[None]:
    """Have libraries look as if they were not installed."""
    absent = [name for name in names if name not in sys.modules]
    sys.modules |= dict.fromkeys(absent)  # type: ignore[arg-type]  # None stops an import
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


@contextmanager
def unmarked(compiler_needed: bool) -> Iterator[None]:
    """Have the compiler's decorators return what they decorate, without importing the compiler."""
    if compiler_needed or COMPILER in sys.modules:
        yield
        return
    stand_in = _put(COMPILER, _itself)
    try:
        yield
    finally:
        if sys.modules.get(COMPILER) is stand_in:
            _remove(COMPILER)


def _itself(name: str) -> Any:
    if name in MARKS:
        return _mark
    _remove(COMPILER)  # more is asked of it, so it is imported after all
    return getattr(importlib.import_module(COMPILER), name)


def _mark(function: Callable[..., Any] | None = None, *_: Any, **__: Any) -> Any:
    return _mark if function is None else function


def postpone(name: str) -> None:
    """Have a module's own code run when the first of its names is asked for.

    Modules of a package can be imported without its own code before.
    """
    if name in sys.modules or importlib.util.find_spec(name) is None:
        return

    def load(attribute: str) -> Any:
        vars(module).pop("__getattr__", None)
        assert module.__spec__ is not None and module.__spec__.loader is not None
        module.__spec__.loader.exec_module(module)
        return getattr(sys.modules[name], attribute)  # it may have put another in its place

    module = _put(name, load)


def _put(name: str, get: Callable[[str], Any]) -> ModuleType:
    """Put a module in the place of one that is not imported yet, and return it."""
    spec = importlib.util.find_spec(name)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)

    def get_attribute(attribute: str) -> Any:
        if attribute.startswith("__"):  # the import system and debuggers ask for these
            raise AttributeError(attribute)
        return get(attribute)

    module.__getattr__ = get_attribute  # type: ignore[method-assign]
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    setattr(sys.modules[parent], child, module)
    return module


def _remove(name: str) -> None:
    del sys.modules[name]
    parent, _, child = name.rpartition(".")
    delattr(sys.modules[parent], child)
