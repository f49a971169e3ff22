"""Samplers as data: diffusers' schedulers, compiled to tables that one product advances."""

from runnables.samplers.compile import compile_table
from runnables.samplers.registry import UnknownSampler, describe, make_scheduler, resolve, samplers
from runnables.samplers.table import SamplerTable, advance, pad_depth

__all__ = [
    "SamplerTable",
    "UnknownSampler",
    "advance",
    "compile_table",
    "describe",
    "make_scheduler",
    "pad_depth",
    "resolve",
    "samplers",
]
