"""The accelerators are listed here, one line per kind of device: its name, and where its class is.

SD_DEVICE takes these names, and `auto` the first whose device is there. This module imports no
torch, because the settings read it.
"""

from __future__ import annotations

ACCELERATORS = {
    "cuda": "runnables.accelerators.cuda.device:Cuda",
    "neuron": "runnables.accelerators.neuron.device:Neuron",
    "cpu": "runnables.accelerators.cpu.device:Cpu",
}
