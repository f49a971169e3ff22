"""Extensions whose parameter names files of one of the operator's folders share this code."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from runnables.checkpoints.library import Library, Sized
from runnables.extensions.base import Context, Extension
from runnables.families.base import Family
from runnables.parameters import Parameters

T = TypeVar("T", bound=Sized)


class FromFolder(Extension, Generic[T]):
    """This base finds what requests name, and keeps what was loaded last.

    Attributes:
        setting: the one that names the folder, without `SD_`.
        pattern: of the files in it, as `Library` takes it.
        adopt: brings a module to the accelerator.
    """

    setting: ClassVar[str]
    pattern: ClassVar[str] = "*.safetensors"

    def __init__(self, family: Family, context: Context) -> None:
        super().__init__(family, context)
        settings, name = context.settings, self.setting
        self.adopt = context.adopt
        self._library: Library[T] = Library(
            getattr(settings, name),
            self.pattern,
            self.read,
            field=(self.name, f"SD_{name.upper()}"),
            budget=settings.adapters_memory_mb * 1e6,
        )

    @abstractmethod
    def read(self, name: str, path: Path) -> T:
        """Return what this file of the folder has, for the model. Raise InvalidInput otherwise."""

    def names(self, parameters: Parameters) -> list[str]:
        """Return the names in the request's parameter, each with a use or alone."""
        return [getattr(use, "name", use) for use in getattr(parameters, self.name)]

    def check(self, parameters: Parameters) -> None:
        for name in self.names(parameters):
            self._library.find(name)

    @property
    def nbytes(self) -> int:
        return self._library.nbytes
