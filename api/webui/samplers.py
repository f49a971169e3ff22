"""The WebUI's names of samplers and of schedules, which are spacings of the noise levels.

A schedule acts as it does there: one that the WebUI does not know is Automatic, and a sampler that
does not have the schedule runs with its own. A sampler that is not here is never replaced.
"""

from __future__ import annotations

from typing import Any

from runnables.errors import Loc, UnknownName
from runnables.samplers import names
from runnables.samplers.names import Prediction, Sampler, plain, samplers

#: our name of a sampler -> the names that the WebUI's clients also use
ALIASES = {
    "lms": ("k_lms",),
    "euler": ("k_euler",),
    "euler_a": ("k_euler_a", "k_euler_ancestral"),
    "heun": ("k_heun",),
    "dpm2": ("k_dpm_2",),
    "dpm2_a": ("k_dpm_2_a",),
    "dpmpp_2m": ("k_dpmpp_2m",),
    "dpmpp_2m_sde": ("k_dpmpp_2m_sde",),
    "dpmpp_sde": ("k_dpmpp_sde",),
}
#: our name of a sampler -> the spacing that the WebUI gives it where the schedule is Automatic
AUTOMATIC = {
    "dpm2": "karras",
    "dpm2_a": "karras",
    "dpmpp_2m": "karras",
    "dpmpp_2m_sde": "exponential",
    "dpmpp_sde": "karras",
}
#: the WebUI's name of a schedule -> its label there, our spacing
SCHEDULES = {
    "uniform": ("Uniform", ""),
    "normal": ("Normal", ""),  # the same noise levels as Uniform
    "karras": ("Karras", "karras"),
    "exponential": ("Exponential", "exponential"),
    "sgm_uniform": ("SGM Uniform", "trailing"),
}
#: the names that end a sampler's name as a schedule, further ones of the WebUI included
_SUFFIXES = tuple(
    f"_{name}"
    for name in (
        *SCHEDULES,
        "sgmuniform",
        "automatic",
        "polyexponential",
        "kl_optimal",
        "align_your_steps",
        "simple",
        "ddim",
        "beta",
    )
)


def resolve(
    sampler: str,
    schedule: str = "",
    *,
    prediction: Prediction = "epsilon",
    loc: Loc = ("sampler_name",),
) -> Sampler:
    """Return the sampler that a client of the WebUI means by its two names.

    Args:
        prediction: The kind of the model that generates the image.
        loc: The field of the sampler's name.

    Raises:
        UnknownName: There is no such sampler.
    """
    wanted = plain(sampler)
    for suffix in (*_SUFFIXES, ""):  # as in "Euler a Karras": such an ending wins over `schedule`
        if wanted.endswith(suffix) and (found := _known(wanted.removesuffix(suffix))):
            return _spaced(found, suffix[1:] or plain(schedule), prediction)
    known = ", ".join(one["name"] for one in sampler_list())
    raise UnknownName(f"there is no sampler {sampler!r}; known: {known}", loc=loc)


def sampler_list() -> list[dict[str, Any]]:
    """Return the answer of `samplers`: those without spacings, which are schedules there."""
    return [
        {"name": one.label, "aliases": _aliases(one), "options": {}}
        for one in samplers().values()
        if not one.spacing
    ]


def schedule_list() -> list[dict[str, Any]]:
    """Return the answer of `schedulers`."""
    labels = {"automatic": "Automatic", **{name: label for name, (label, _) in SCHEDULES.items()}}
    unknown = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return [{"name": name, "label": label, **unknown} for name, label in labels.items()]


def _known(name: str) -> Sampler | None:
    for ours, aliases in ALIASES.items():
        if name in aliases:
            return samplers()[ours]
    return names.find(name)


def _spaced(sampler: Sampler, schedule: str, prediction: Prediction) -> Sampler:
    """Return the sampler with a schedule, or with its own where it does not have that one."""
    own = AUTOMATIC.get(sampler.name, "")
    _, spacing = SCHEDULES.get(schedule.replace("sgmuniform", "sgm_uniform"), ("", own))
    for suffix in (spacing, own):
        spaced = samplers().get(f"{sampler.name}_{suffix}") if suffix else sampler
        if spaced is not None and spaced.fits(prediction):
            return spaced
    return sampler


def _aliases(sampler: Sampler) -> list[str]:
    return [*ALIASES.get(sampler.name, ()), *sampler.aliases[1:]]
