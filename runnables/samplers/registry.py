"""Samplers by name: adding one is one line.

A name is ours, short and lower case; diffusers' class name and the label other programs show are
aliases of it. Where a scheduler class supports other noise spacings, a suffix chooses one:
`_karras`, `_exponential` or `_trailing`, named after diffusers' options. (Beta spacing is left out:
diffusers' DPM-Solver classes fail with it at 50 steps.)
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

DEFAULT = "default"  # the scheduler in the model's own folder, as it is configured there


class UnknownSampler(ValueError):
    """No sampler of this name; the message proposes the closest ones."""


@dataclass(frozen=True)
class Sampler:
    """One scheduler class of diffusers and the options that make it this sampler.

    Attributes:
        also: further names that clients of the Stable Diffusion WebUI use.
        automatic: the spacing that the WebUI takes where it is told "Automatic"; "": plain.
    """

    name: str
    label: str
    scheduler: str
    options: Mapping[str, Any] = field(default_factory=dict)
    spacing: str = ""
    stochastic: bool = False
    also: tuple[str, ...] = ()
    automatic: str = ""

    @property
    def aliases(self) -> tuple[str, ...]:
        """The label, what the WebUI calls it, and the class name where this is its plain form."""
        plain = self.options in ({}, LAST) and not self.spacing
        return (self.label, *self.also, *([self.scheduler] if plain else []))


SDE: dict[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
LAST: dict[str, Any] = {"lower_order_final": True}  # what the class sets itself, with a warning
_DECLARED = (
    Sampler("ddim", "DDIM", "DDIMScheduler"),
    Sampler("ddpm", "DDPM", "DDPMScheduler", stochastic=True),
    Sampler("pndm", "PLMS", "PNDMScheduler"),
    Sampler("lms", "LMS", "LMSDiscreteScheduler", also=("k_lms",)),
    Sampler("euler", "Euler", "EulerDiscreteScheduler", also=("k_euler",)),
    Sampler(
        "euler_a",
        "Euler a",
        "EulerAncestralDiscreteScheduler",
        stochastic=True,
        also=("k_euler_a", "k_euler_ancestral"),
    ),
    Sampler("heun", "Heun", "HeunDiscreteScheduler", also=("k_heun",)),
    Sampler("dpm2", "DPM2", "KDPM2DiscreteScheduler", also=("k_dpm_2",), automatic="karras"),
    Sampler(
        "dpm2_a",
        "DPM2 a",
        "KDPM2AncestralDiscreteScheduler",
        stochastic=True,
        also=("k_dpm_2_a",),
        automatic="karras",
    ),
    Sampler(
        "dpmpp_2m",
        "DPM++ 2M",
        "DPMSolverMultistepScheduler",
        also=("k_dpmpp_2m",),
        automatic="karras",
    ),
    Sampler(
        "dpmpp_2m_sde",
        "DPM++ 2M SDE",
        "DPMSolverMultistepScheduler",
        SDE,
        stochastic=True,
        also=("k_dpmpp_2m_sde",),
        automatic="exponential",
    ),
    Sampler("dpmpp_2s", "DPM++ 2S", "DPMSolverSinglestepScheduler", LAST),
    Sampler(
        "dpmpp_sde",
        "DPM++ SDE",
        "DPMSolverSinglestepScheduler",
        SDE | LAST,
        stochastic=True,
        also=("k_dpmpp_sde",),
        automatic="karras",
    ),
    Sampler("unipc", "UniPC", "UniPCMultistepScheduler"),
    Sampler("deis", "DEIS", "DEISMultistepScheduler"),
    Sampler("lcm", "LCM", "LCMScheduler", stochastic=True),
    Sampler("tcd", "TCD", "TCDScheduler"),
)

#: suffix -> (what the label gains, the option it sets)
SPACINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "karras": ("Karras", {"use_karras_sigmas": True}),
    "exponential": ("Exponential", {"use_exponential_sigmas": True}),
    "trailing": ("Trailing", {"timestep_spacing": "trailing"}),
}
#: what the WebUI calls a spacing -> (its label there, ours)
WEBUI_SPACINGS: dict[str, tuple[str, str]] = {
    "automatic": ("Automatic", ""),  # each sampler's own
    "uniform": ("Uniform", ""),
    "karras": ("Karras", "karras"),
    "exponential": ("Exponential", "exponential"),
    "sgm_uniform": ("SGM Uniform", "trailing"),
}
_SIGMA_SWITCHES = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas")


@cache
def samplers() -> dict[str, Sampler]:
    """All samplers by name: those declared, and their spacings."""
    every = {}
    for plain in _DECLARED:
        every[plain.name] = plain
        for suffix in _spacings_of(plain):
            label = f"{plain.label} {SPACINGS[suffix][0]}"
            name = f"{plain.name}_{suffix}"
            every[name] = Sampler(
                name, label, plain.scheduler, plain.options, suffix, plain.stochastic
            )
    return every


def resolve(name: str) -> str:
    """The canonical name of a sampler given by name, label or diffusers class, in any case.

    Raises:
        UnknownSampler: naming the closest ones.
    """
    wanted = _plain(name)
    if wanted == DEFAULT:
        return DEFAULT
    found = _aliases().get(wanted)
    if found is None:
        close = difflib.get_close_matches(wanted, samplers(), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else ""
        raise UnknownSampler(f"there is no sampler {name!r}{hint} GET /samplers lists them")
    return found


def resolve_webui(sampler: str, spacing: str = "automatic") -> str:
    """The canonical name of what a client of the WebUI means by its two names.

    Raises:
        UnknownSampler: no such sampler, no such spacing, or the sampler does not support it.
    """
    name = resolve(sampler)
    if name == DEFAULT or samplers()[name].spacing:  # such as "DPM++ 2M Karras"
        return name
    wanted = _plain(spacing or "automatic")
    if wanted not in WEBUI_SPACINGS:
        known = ", ".join(label for label, _ in WEBUI_SPACINGS.values())
        raise UnknownSampler(f"there is no spacing {spacing!r}; known: {known}.")
    suffix = samplers()[name].automatic if wanted == "automatic" else WEBUI_SPACINGS[wanted][1]
    return resolve(f"{name}_{suffix}") if suffix else name


def describe() -> list[dict[str, Any]]:
    """Every sampler as `GET /samplers` shows it."""
    return [
        {
            "name": sampler.name,
            "label": sampler.label,
            "scheduler": sampler.scheduler,
            "aliases": list(sampler.aliases),
            "stochastic": sampler.stochastic,
            "spacing": sampler.spacing,
        }
        for sampler in samplers().values()
    ]


def describe_spacings() -> list[dict[str, str]]:
    """Every spacing that a client of the WebUI may name."""
    return [{"name": name, "label": label} for name, (label, _) in WEBUI_SPACINGS.items()]


def make_scheduler(name: str, config: Mapping[str, Any]) -> Any:
    """diffusers' scheduler, configured from a model's scheduler config as the name says.

    Args:
        name: as `resolve` accepts it; "default" takes the class that `config` names.
        config: scheduler_config.json of the model, with `_class_name`.

    Raises:
        ValueError: the config asks for dynamic thresholding, which no table can hold (it is not
            linear, and made for models that draw pixels).
    """
    import diffusers

    if config.get("thresholding"):
        raise ValueError(
            "scheduler_config.json asks for dynamic thresholding, which is not for latent models"
        )

    canonical = resolve(name)
    if canonical == DEFAULT:
        scheduler_class = getattr(diffusers, config["_class_name"])
        options: dict[str, Any] = {}
    else:
        sampler = samplers()[canonical]
        scheduler_class = getattr(diffusers, sampler.scheduler)
        options = dict.fromkeys(_SIGMA_SWITCHES, False)
        options |= {**sampler.options, **SPACINGS.get(sampler.spacing, ("", {}))[1]}
    options["clip_sample"] = False  # not linear; diffusers' Stable Diffusion pipelines turn it off
    accepted = inspect.signature(scheduler_class.__init__).parameters
    kept = {key: value for key, value in options.items() if key in accepted}
    unset = config.get("_use_default_values", ())  # another class has other defaults
    known = {k: value for k, value in config.items() if k in accepted and k not in unset}
    return scheduler_class.from_config({**known, **kept})


def _spacings_of(sampler: Sampler) -> list[str]:
    import diffusers

    accepted = inspect.signature(getattr(diffusers, sampler.scheduler).__init__).parameters
    return [suffix for suffix, (_, option) in SPACINGS.items() if set(option) <= set(accepted)]


@cache
def _aliases() -> dict[str, str]:
    every: dict[str, str] = {}
    for sampler in samplers().values():
        for alias in (sampler.name, *sampler.aliases):
            every.setdefault(_plain(alias), sampler.name)
    return every


def _plain(name: str) -> str:
    return "_".join(name.lower().replace("++", "pp").replace("-", " ").split())
