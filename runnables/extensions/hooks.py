"""Extensions act inside a module by hooks on its layers, while a call runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from runnables.extensions.base import Call, Denoise

#: a layer, and what is called after its forward
Hook = tuple[nn.Module, Callable[..., Any]]


@contextmanager
def hooked(hooks: Sequence[Hook]) -> Iterator[None]:
    """Call these hooks after their layers' forwards while the context is open.

    They get the layer, its inputs, its inputs by name, and its output.
    """
    if not hooks:
        yield
        return
    handles = [layer.register_forward_hook(hook, with_kwargs=True) for layer, hook in hooks]
    try:
        with _eager():
            yield
    finally:
        for handle in handles:
            handle.remove()


class HookedCall(Call):
    """This call runs the denoiser with hooks on its layers."""

    def __init__(self, hooks: Sequence[Hook]) -> None:
        self._hooks = hooks

    def around(self, denoise: Denoise) -> Denoise:
        return hooked(self._hooks)(denoise)


def _eager() -> AbstractContextManager[Any]:
    """Return a context without compiled code, which knows no hooks.

    Where the compiler was never imported, there is none, and it would be imported for this.
    """
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance
