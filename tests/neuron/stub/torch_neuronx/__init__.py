"""A stand-in for the SDK: `trace` is torch.jit.trace, and shapes are as static as on the device.

It proves that the calls are right, not that the compiler takes them, nor speed, memory or numerics.
"""

from __future__ import annotations

import itertools
import linecache

import torch

COUNT = itertools.count()


def trace(
    func,
    example_inputs,
    *,
    compiler_args=None,
    input_output_aliases=None,
    inline_weights_to_neff=True,
    cpu_backend=False,
    compiler_workdir=None,
):
    """A module that takes exactly the shapes and dtypes of its example."""
    inputs = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
    with torch.no_grad():
        inner = torch.jit.trace(func, inputs, strict=False, check_trace=False)
    return torch.jit.script(_static(inputs)(inner))


def _static(inputs):
    """A module class whose `forward` asserts; TorchScript wants its source."""
    names = [f"x{i}" for i in range(len(inputs))]
    checks = []
    for name, example in zip(names, inputs, strict=True):
        shape = list(example.shape)
        checks.append(f"assert list({name}.shape) == {shape}, 'compiled for {shape} as {name}'")
        checks.append(f"assert {name}.dtype == {example.dtype}, 'compiled for another dtype'")
    body = "\n        ".join([*checks, f"return self.inner({', '.join(names)})"])
    source = f"""
class Static(torch.nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, {", ".join(names)}):
        {body}
"""
    file = f"<static {next(COUNT)}>"
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    space = {"torch": torch, "__name__": __name__}
    exec(compile(source, file, "exec"), space)
    return space["Static"]


def async_load(module):
    """On the device: load while others load."""


def lazy_load(module):
    """On the device: load at the first call."""


def move_trace_to_device(module, device):
    """On the device: choose a core."""


def dynamic_batch(module):
    raise NotImplementedError("broken upstream for diffusion models")


class DataParallel:
    """The batch in equal parts, one a core."""

    def __init__(self, module, device_ids, set_dynamic_batching=True):
        self.module, self.device_ids = module, device_ids

    def __call__(self, *inputs):
        cores = len(self.device_ids)
        parts = zip(*(tensor.chunk(cores) for tensor in inputs), strict=True)
        outputs = [self.module(*part) for part in parts]
        if isinstance(outputs[0], dict):
            return {k: torch.cat([part[k] for part in outputs]) for k in outputs[0]}
        return tuple(torch.cat(tensors) for tensors in zip(*outputs, strict=True))


class experimental:
    @staticmethod
    def set_neuron_cores(module, start_nc, nc_count):
        """On the device: choose cores."""
