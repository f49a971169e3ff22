"""Samplers are listed by name, one per line.

A name is ours, short and lower case; the label that people read and diffusers' class name are
aliases of it. Where a scheduler class supports other spacings of the noise levels, a suffix chooses
one: `_karras`, `_exponential` or `_trailing`, named after diffusers' options. (Beta spacing is left
out: diffusers' DPM-Solver classes fail with it at 50 steps.)

A sampler has one form for diffusion models and another one for flow matching models; a sampler
without the form that a model needs does not fit that model. This module imports neither torch nor
diffusers, so that every API can resolve a name; `tests/runnables/samplers/test_names.py` compares
its data with diffusers' classes.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Literal, get_args

from runnables.errors import InvalidInput, UnknownName

#: what a model's output means; `flow` is the velocity of flow matching
Prediction = Literal["epsilon", "v_prediction", "sample", "flow"]
PREDICTIONS: tuple[Prediction, ...] = get_args(Prediction)
_DIFFUSION: tuple[Prediction, ...] = ("epsilon", "v_prediction", "sample")
_NOT_SAMPLE: tuple[Prediction, ...] = ("epsilon", "v_prediction")

#: suffix -> (what the label gains, the option it sets)
SPACINGS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "karras": ("Karras", {"use_karras_sigmas": True}),
    "exponential": ("Exponential", {"use_exponential_sigmas": True}),
    "trailing": ("Trailing", {"timestep_spacing": "trailing"}),
}
_EVERY = tuple(SPACINGS)
_TRAILING = ("trailing",)
_SIGMAS = ("karras", "exponential")
_SINGLESTEP = "DPMSolverSinglestepScheduler"


@dataclass(frozen=True)
class Form:
    """A form is one scheduler class of diffusers, and what makes it a sampler.

    Attributes:
        scheduler: the name of the class.
        options: what the class is passed beside the model's own scheduler config.
        spacings: the spacings that the class supports, keys of SPACINGS.
        predictions: the kinds of models that the class can sample from.
    """

    scheduler: str
    options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    spacings: tuple[str, ...] = ()
    predictions: tuple[Prediction, ...] = _DIFFUSION


@dataclass(frozen=True)
class Sampler:
    """A sampler is described here as requests name it.

    Attributes:
        name: the canonical name; `str` gives it, too.
        label: the name that people read.
        diffusion, flow: the forms for the two kinds of models; None: there is no such form.
        spacing: a key of SPACINGS; "": the form's plain spacing.
        stochastic: whether the steps add noise.
        aliases: further names that requests may use.
    """

    name: str
    label: str
    diffusion: Form | None = None
    flow: Form | None = None
    spacing: str = ""
    stochastic: bool = False
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.name

    def form(self, prediction: Prediction) -> Form | None:
        """Return the form for models of this kind; None where the sampler does not fit them."""
        form = self.flow if prediction == "flow" else self.diffusion
        if form is None or prediction not in form.predictions:
            return None
        return form if self.spacing in ("", *form.spacings) else None

    def fits(self, prediction: Prediction) -> bool:
        """Return whether models of this kind can be sampled with it; DEFAULT fits every model."""
        return self.name == DEFAULT.name or self.form(prediction) is not None


#: the scheduler in the model's own folder, as it is configured there
DEFAULT = Sampler("default", "Default")

_SDE: Mapping[str, Any] = {"algorithm_type": "sde-dpmsolver++"}
_LAST: Mapping[str, Any] = {"lower_order_final": True}  # the class sets it itself, with a warning
_FLOW: Mapping[str, Any] = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}


def _multistep(
    name: str, label: str, scheduler: str, *, stochastic: bool = False, **options: Any
) -> Sampler:
    """Return a sampler of a multistep class; only UniPC turns Karras' noise levels into flow's."""
    karras = ("karras",) if scheduler == "UniPCMultistepScheduler" else ()
    diffusion = Form(scheduler, options, _EVERY)
    flow = Form(scheduler, {**_FLOW, **options}, karras, ("flow",))
    return Sampler(name, label, diffusion, flow, stochastic=stochastic)


def _flow_match(scheduler: str, *spacings: str) -> Form:
    return Form(scheduler, {}, spacings, ("flow",))


_DECLARED = (
    Sampler("ddim", "DDIM", Form("DDIMScheduler", {}, _TRAILING)),
    Sampler("ddpm", "DDPM", Form("DDPMScheduler", {}, _TRAILING), stochastic=True),
    Sampler("pndm", "PLMS", Form("PNDMScheduler", {}, _TRAILING, _NOT_SAMPLE)),
    Sampler("lms", "LMS", Form("LMSDiscreteScheduler", {}, _EVERY)),
    Sampler(
        "euler",
        "Euler",
        Form("EulerDiscreteScheduler", {}, _EVERY),
        _flow_match("FlowMatchEulerDiscreteScheduler", *_SIGMAS),
    ),
    Sampler(
        "euler_a",
        "Euler a",
        Form("EulerAncestralDiscreteScheduler", {}, _TRAILING, _NOT_SAMPLE),
        stochastic=True,
    ),
    Sampler(
        "heun",
        "Heun",
        Form("HeunDiscreteScheduler", {}, _EVERY),
        _flow_match("FlowMatchHeunDiscreteScheduler"),
    ),
    Sampler("dpm2", "DPM2", Form("KDPM2DiscreteScheduler", {}, _EVERY, _NOT_SAMPLE)),
    Sampler(
        "dpm2_a",
        "DPM2 a",
        Form("KDPM2AncestralDiscreteScheduler", {}, _EVERY, _NOT_SAMPLE),
        stochastic=True,
    ),
    _multistep("dpmpp_2m", "DPM++ 2M", "DPMSolverMultistepScheduler"),
    _multistep(
        "dpmpp_2m_sde", "DPM++ 2M SDE", "DPMSolverMultistepScheduler", stochastic=True, **_SDE
    ),
    Sampler("dpmpp_2s", "DPM++ 2S", Form(_SINGLESTEP, _LAST, _SIGMAS)),
    Sampler(
        "dpmpp_sde", "DPM++ SDE", Form(_SINGLESTEP, {**_SDE, **_LAST}, _SIGMAS), stochastic=True
    ),
    _multistep("unipc", "UniPC", "UniPCMultistepScheduler"),
    _multistep("deis", "DEIS", "DEISMultistepScheduler"),
    Sampler("lcm", "LCM", Form("LCMScheduler", {}, _TRAILING), stochastic=True),
    Sampler("tcd", "TCD", Form("TCDScheduler", {}, _TRAILING)),
)


@cache
def samplers() -> Mapping[str, Sampler]:
    """Return all samplers by name: those declared, and their spacings."""
    return {one.name: one for plain in _DECLARED for one in (_named(plain), *_spaced(plain))}


def find(name: str) -> Sampler | None:
    """Return the sampler of this name, label or diffusers class, in any letter case."""
    return _by_alias().get(plain(name))


def resolve(name: str) -> Sampler:
    """Return the sampler that `find` finds.

    Raises:
        UnknownName: no sampler has the name; the message proposes the closest ones.
    """
    found = find(name)
    if found is None:
        close = difflib.get_close_matches(plain(name), samplers(), n=3, cutoff=0.4)
        hint = f"; did you mean {', '.join(close)}?" if close else "."
        why = f"there is no sampler {name!r}{hint} GET /samplers lists them"
        raise UnknownName(why, loc=("scheduler",))
    return found


def check_fits(sampler: Sampler, prediction: Prediction) -> None:
    """Refuse a sampler that cannot sample from models of this kind.

    Raises:
        InvalidInput: naming the sampler, the kind and the samplers that fit.
    """
    if not sampler.fits(prediction):
        kind = "a flow matching model" if prediction == "flow" else f"a model of {prediction}"
        fitting = [one.name for one in (DEFAULT, *samplers().values()) if one.fits(prediction)]
        raise InvalidInput(
            f"{sampler} does not fit {kind}; those that fit are {', '.join(fitting)}",
            loc=("scheduler",),
        )


def prediction_of(scheduler_config: Mapping[str, Any]) -> Prediction:
    """Return the kind of a model, read from its scheduler config with `_class_name`."""
    kind = scheduler_config.get("prediction_type", "epsilon")
    matching = str(scheduler_config.get("_class_name", "")).startswith("FlowMatch")
    if matching or scheduler_config.get("use_flow_sigmas") or kind == "flow_prediction":
        return "flow"
    return next((one for one in _DIFFUSION if one == kind), "epsilon")


def describe() -> list[dict[str, Any]]:
    """Return every sampler as `GET /samplers` shows it."""
    return [
        {
            "name": one.name,
            "label": one.label,
            "scheduler": one.diffusion and one.diffusion.scheduler,
            "flow_scheduler": one.flow.scheduler if one.flow and one.fits("flow") else None,
            "aliases": list(one.aliases),
            "stochastic": one.stochastic,
            "spacing": one.spacing,
            "predictions": [kind for kind in PREDICTIONS if one.fits(kind)],
        }
        for one in samplers().values()
    ]


def plain(name: str) -> str:
    """Return a name as names are compared: lower case, `pp` for `++`, its words joined by `_`."""
    return "_".join(name.lower().replace("++", "pp").replace("-", " ").split())


def _named(one: Sampler) -> Sampler:
    """Return the sampler with its aliases.

    A class name is an alias of the sampler without options.
    """
    form = one.diffusion
    classes = [form.scheduler] if form and form.options in ({}, _LAST) else []
    return replace(one, aliases=(one.label, *classes))


def _spaced(one: Sampler) -> list[Sampler]:
    """Return the sampler with each spacing that one of its forms supports."""
    supported = {suffix for form in (one.diffusion, one.flow) if form for suffix in form.spacings}
    every = []
    for suffix in SPACINGS:
        if suffix in supported:
            label = f"{one.label} {SPACINGS[suffix][0]}"
            name = f"{one.name}_{suffix}"
            every.append(replace(one, name=name, label=label, spacing=suffix, aliases=(label,)))
    return every


def _of_flow_classes() -> list[Sampler]:
    """Return the classes that only flow matching has, under their own names."""
    forms = [one.flow for one in _DECLARED if one.flow and one.flow.scheduler.startswith("Flow")]
    return [Sampler(form.scheduler, form.scheduler, flow=form) for form in forms]


@cache
def _by_alias() -> Mapping[str, Sampler]:
    every: dict[str, Sampler] = {}
    for one in (DEFAULT, *samplers().values(), *_of_flow_classes()):
        for alias in (one.name, *one.aliases):
            every.setdefault(plain(alias), one)
    return every
