"""diffusers' schedulers are configured here from a model's scheduler config, as a sampler says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import diffusers

from runnables.samplers.names import SPACINGS, Form, Sampler, check_fits, prediction_of

_SIGMA_SWITCHES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")
#: diffusers' pipelines that mend old scheduler configs in their constructors
_MENDING = (
    "StableDiffusionPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
)


def make_scheduler(sampler: Sampler, config: Mapping[str, Any]) -> Any:
    """Return diffusers' scheduler for a sampler and a model.

    Args:
        config: scheduler_config.json of the model, with `_class_name`; DEFAULT takes that class.

    Raises:
        InvalidInput: the sampler does not fit the model's kind of prediction.
        ValueError: the config sets dynamic thresholding, which no table can hold (it is not
            linear, and made for models that work on pixels).
    """
    if config.get("thresholding"):
        raise ValueError(
            "scheduler_config.json sets dynamic thresholding, which is not for latent models"
        )
    prediction = prediction_of(config)
    check_fits(sampler, prediction)
    form = sampler.form(prediction)
    name = form.scheduler if form else config["_class_name"]
    scheduler_class = getattr(diffusers, name)
    options = _options(sampler, form, config) if form else {}
    options["clip_sample"] = False  # not linear; diffusers' Stable Diffusion pipelines turn it off
    accepted = inspect.signature(scheduler_class.__init__).parameters
    kept = {key: value for key, value in options.items() if key in accepted}
    unset = config.get("_use_default_values", ())  # another class has other defaults
    known = {k: value for k, value in config.items() if k in accepted and k not in unset}
    return scheduler_class.from_config({**known, **kept})


def mended(config: Mapping[str, Any], pipeline: str) -> dict[str, Any]:
    """Return a model's scheduler config as diffusers' pipeline of this class name uses it.

    The Stable Diffusion pipelines set `steps_offset` to 1, whatever an old config says.
    """
    if pipeline not in _MENDING:
        return dict(config)
    unset = [name for name in config.get("_use_default_values", ()) if name != "steps_offset"]
    return {**config, "steps_offset": 1, "_use_default_values": unset}


def _options(sampler: Sampler, form: Form, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a named sampler sets itself; the flow classes have two names for the shift."""
    options: dict[str, Any] = dict.fromkeys(_SIGMA_SWITCHES, False)
    if sampler.fits("flow"):
        shift = config.get("shift", config.get("flow_shift", 1.0))
        options |= {"shift": shift, "flow_shift": shift}
    spacing = SPACINGS[sampler.spacing][1] if sampler.spacing else {}
    return {**options, **form.options, **spacing}
