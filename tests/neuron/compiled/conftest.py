"""Run where optimum-neuron and the SDK's stand-in are: `make neuron-check`."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch_neuronx") is None:
    collect_ignore_glob = ["test_*.py"]
