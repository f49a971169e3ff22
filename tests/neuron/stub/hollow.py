"""Modules without content, for what optimum-neuron imports of the SDK and does not call here."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from types import ModuleType


class Hollow(ModuleType):
    """Every public name in it is a class that nothing can be made of."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        made = type(name, (), {"__module__": self.__name__})
        setattr(self, name, made)
        return made


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds any submodule of `package`."""

    def __init__(self, package: str) -> None:
        self.prefix = package + "."

    def find_spec(self, name, path=None, target=None):
        if name.startswith(self.prefix):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return Hollow(spec.name)

    def exec_module(self, module) -> None:
        return None


def hollow(package: str) -> None:
    """Make a package and all below it hollow."""
    sys.meta_path.append(Finder(package))
    sys.modules[package].__class__ = Hollow
