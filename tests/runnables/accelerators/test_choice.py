"""A kind of device is a class and a line in `names`; SD_DEVICE chooses one."""

from __future__ import annotations

import pkgutil

import pytest

from runnables.accelerators import choose
from runnables.accelerators.base import Accelerator
from runnables.accelerators.cpu.device import Cpu
from runnables.accelerators.cuda.device import Cuda
from runnables.accelerators.names import ACCELERATORS
from runnables.accelerators.neuron.device import Neuron
from runnables.errors import ConfigurationError
from runnables.settings import Settings


class Stub(Cpu):
    """A further kind of device, as somebody else would add it."""


@pytest.mark.parametrize("place", ACCELERATORS.values())
def test_every_line_names_an_accelerator(place: str) -> None:
    assert issubclass(pkgutil.resolve_name(place), Accelerator)


def test_a_line_is_all_that_a_new_kind_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ACCELERATORS, "stub", f"{__name__}:Stub")
    assert type(choose(Settings(device="stub"))) is Stub


def test_auto_takes_the_first_that_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Cuda, Neuron):
        monkeypatch.setattr(kind, "present", lambda: False)
    assert type(choose(Settings(device="auto"))) is Cpu
    monkeypatch.setattr(Neuron, "present", lambda: True)
    with pytest.raises(ConfigurationError, match="torch_neuronx"):
        choose(Settings(device="auto"))


def test_an_unknown_device_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_DEVICE", "gpu")
    with pytest.raises(ConfigurationError, match=r"SD_DEVICE: .* auto, cuda, neuron, cpu"):
        Settings.from_environment()
