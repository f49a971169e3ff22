"""Which runnable draws a task: always the same one, or, in a dynamic worker, its own model's."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runnables.errors import ConfigurationError, UnknownName
from runnables.runnable import Observe, StableDiffusionRunnable
from runnables.settings import Settings


class Models:
    """Holds one model at a time.

    A dynamic worker changes it once nobody draws with the present one; tasks take turns in the
    order they came, so that a stream for one model never starves another.

    Args:
        folder: where a dynamic worker looks models up by name; None: it keeps the first one.
    """

    def __init__(self, settings: Settings, observe: Observe, folder: Path | None = None) -> None:
        self._settings, self._observe, self._folder = settings, observe, folder
        self._turn = threading.Lock()
        self._free = threading.Condition()
        self._users = 0
        self._name: str | None = None
        self.runnable = StableDiffusionRunnable(settings, observe=observe)

    @contextmanager
    def use(self, name: str | None) -> Iterator[StableDiffusionRunnable]:
        """The runnable that draws this model, for as long as the block lasts; waits for its turn.

        Raises:
            UnknownName: a dynamic worker has no such model, or it cannot be loaded.
        """
        with self._turn, self._free:
            if self._folder is not None and name is not None and name != self._name:
                self._free.wait_for(lambda: self._users == 0)
                self._change(self._folder, name)
            self._users += 1
        try:
            yield self.runnable
        finally:
            with self._free:
                self._users -= 1
                self._free.notify_all()

    def _change(self, folder: Path, name: str) -> None:
        path = folder / name  # the message's check lets no `..` through
        if not path.exists():
            raise UnknownName(f"there is no model {name} here", loc=("sd_model_checkpoint",))
        settings = self._settings.model_copy(update={"model": str(path)})
        following = StableDiffusionRunnable(settings, observe=self._observe)
        self.runnable.close()  # first: two models may not fit
        self._name = None
        try:
            following.start()
        except ConfigurationError as error:
            message = f"the model {name} cannot be loaded: {error.message}"
            raise UnknownName(message, loc=("sd_model_checkpoint",)) from error
        self.runnable, self._name = following, name
