"""Samplers as data: diffusers' schedulers, compiled to tables that one product advances."""

from runnables.samplers.compile import compile_table
from runnables.samplers.registry import (
    UnknownSampler,
    describe,
    describe_spacings,
    make_scheduler,
    resolve,
    resolve_webui,
    samplers,
)
from runnables.samplers.table import SamplerTable, advance, pad_depth

__all__ = [
    "SamplerTable",
    "UnknownSampler",
    "advance",
    "compile_table",
    "describe",
    "describe_spacings",
    "make_scheduler",
    "pad_depth",
    "resolve",
    "resolve_webui",
    "samplers",
]
