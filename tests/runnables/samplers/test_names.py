"""Names resolve once, without torch, and their data agree with diffusers' classes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from pydantic import ValidationError

from runnables.checkpoints.checkpoint import profile_of
from runnables.errors import ConfigurationError, InvalidInput, UnknownName
from runnables.parameters import Profile, TextToImage
from runnables.samplers.names import (
    DEFAULT,
    PREDICTIONS,
    SPACINGS,
    Form,
    check_fits,
    describe,
    prediction_of,
    resolve,
    samplers,
)
from runnables.samplers.scheduler import make_scheduler

ROOT = Path(__file__).resolve().parents[3]
PLAIN = [one for one in samplers().values() if not one.spacing]
DIFFUSION = {one.diffusion.scheduler: one.diffusion for one in PLAIN if one.diffusion}
FLOW = {one.name: one.flow for one in PLAIN if one.flow}


def test_names_are_resolved_without_torch() -> None:
    heavy = {"torch", "diffusers", "transformers", "numpy"}
    code = (
        "import sys, runnables.parameters, runnables.runnable, api.webui.samplers; "
        f"print({heavy} & set(sys.modules))"
    )
    reported = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert reported.stdout.strip() == "set()", reported.stderr


def test_names_labels_and_classes_resolve() -> None:
    for arguments in ("dpmpp_2m_karras", "DPM++ 2M Karras", "dpm++ 2m karras"):
        assert resolve(arguments) is samplers()["dpmpp_2m_karras"]
    assert resolve("EulerAncestralDiscreteScheduler").name == "euler_a"
    assert resolve("DPMSolverMultistepScheduler").name == "dpmpp_2m"
    assert resolve("Default") is DEFAULT
    three = r"'euller'; did you mean euler, \w+, \w+\?"
    with pytest.raises(UnknownName, match=three) as caught:
        resolve("euller")
    assert caught.value.loc == ("scheduler",)


def test_the_list_names_the_classes_of_both_forms() -> None:
    listed = {one["name"]: (one["scheduler"], one["flow_scheduler"]) for one in describe()}
    assert listed["ddim"] == ("DDIMScheduler", None)
    assert listed["euler"] == ("EulerDiscreteScheduler", "FlowMatchEulerDiscreteScheduler")
    assert listed["euler_trailing"] == ("EulerDiscreteScheduler", None), "flow has no such spacing"


def test_every_alias_is_one_samplers() -> None:
    for sampler in samplers().values():
        for alias in (sampler.name, *sampler.aliases):
            assert resolve(alias) is sampler


# -- parameters ---------------------------------------------------------------------------------


def test_a_request_carries_the_sampler_and_json_its_name() -> None:
    wanted = TextToImage.model_validate({"prompt": "x", "scheduler": "dpm++ 2M karras"})
    assert wanted.scheduler is samplers()["dpmpp_2m_karras"]
    assert wanted.model_dump()["scheduler"] == "dpmpp_2m_karras"
    assert json.loads(wanted.model_dump_json())["scheduler"] == "dpmpp_2m_karras"
    assert TextToImage.model_validate_json(wanted.model_dump_json()) == wanted
    assert TextToImage(prompt="x").scheduler is None
    schema = TextToImage.model_json_schema()["properties"]["scheduler"]
    assert schema["anyOf"][0]["type"] == "string"
    for example in schema["anyOf"][0]["examples"]:
        resolve(example)


@pytest.mark.parametrize("wrong", [7, ["euler"], {"name": "euler"}, "x" * 101])
def test_what_is_no_name_is_refused(wrong: object) -> None:
    with pytest.raises(ValidationError, match="scheduler"):
        TextToImage.model_validate({"prompt": "x", "scheduler": wrong})


def test_a_profile_is_resolved_when_it_is_read() -> None:
    config = {"_class_name": "PNDMScheduler"}
    profile = profile_of("stable-diffusion", config, {"scheduler": "Euler a"})
    assert profile.scheduler is samplers()["euler_a"]
    assert TextToImage(prompt="x").resolve(profile).scheduler is profile.scheduler
    assert TextToImage(prompt="x").resolve(Profile()).scheduler is DEFAULT
    assert profile.model_dump()["scheduler"] == "euler_a"
    with pytest.raises(ConfigurationError, match=r"profile\.json: there is no sampler 'eulr'"):
        profile_of("stable-diffusion", config, {"scheduler": "eulr"})


# -- the data, compared with diffusers' classes -------------------------------------------------


@pytest.mark.parametrize("name", DIFFUSION)
def test_spacings_are_those_of_the_classes(name: str) -> None:
    accepted = inspect.signature(getattr(diffusers, name).__init__).parameters
    supported = [suffix for suffix, (_, option) in SPACINGS.items() if set(option) <= set(accepted)]
    assert list(DIFFUSION[name].spacings) == supported


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("name", DIFFUSION)
def test_predictions_are_those_of_the_classes(name: str, kind: Any) -> None:
    """A class refuses a kind in its constructor or at its first step."""

    def run() -> None:
        scheduler = getattr(diffusers, name)(prediction_type=kind, **DIFFUSION[name].options)
        scheduler.set_timesteps(4)
        scheduler.scale_model_input(torch.zeros(1, 1, 1, 1), scheduler.timesteps[0])
        scheduler.step(torch.zeros(1, 1, 1, 1), scheduler.timesteps[0], torch.zeros(1, 1, 1, 1))

    if kind in DIFFUSION[name].predictions:
        run()
    else:
        with pytest.raises((ValueError, NotImplementedError)):
            run()


@pytest.mark.parametrize("suffix", SPACINGS)
@pytest.mark.parametrize("name", FLOW)
def test_flow_spacings_are_those_that_give_other_noise_levels_of_flow(
    name: str, suffix: str
) -> None:
    form, option = FLOW[name], SPACINGS[suffix][1]
    accepted = inspect.signature(getattr(diffusers, form.scheduler).__init__).parameters
    supported = set(option) <= set(accepted)
    if supported:
        plain, spaced = levels(form), levels(form, **option)
        supported = bool((spaced <= 1).all()) and not torch.allclose(plain, spaced)
    assert (suffix in form.spacings) == supported


def levels(form: Form, **option: Any) -> torch.Tensor:
    scheduler = getattr(diffusers, form.scheduler)(**form.options, **option)
    scheduler.set_timesteps(8)
    sigmas: torch.Tensor = scheduler.sigmas
    return sigmas


# -- kinds of models ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "kind"),
    [
        ({"_class_name": "PNDMScheduler"}, "epsilon"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"}, "v_prediction"),
        ({"_class_name": "DDIMScheduler", "prediction_type": "sample"}, "sample"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 3.0}, "flow"),
        ({"_class_name": "FlowMatchHeunDiscreteScheduler"}, "flow"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "flow"),
        (
            {"_class_name": "DEISMultistepScheduler", "prediction_type": "flow_prediction"},
            "flow",
        ),
    ],
)
def test_the_kind_of_a_model_is_in_its_scheduler_config(config: dict[str, Any], kind: str) -> None:
    assert prediction_of(config) == kind


def test_a_sampler_that_does_not_fit_is_refused_by_name() -> None:
    flow = {"_class_name": "FlowMatchEulerDiscreteScheduler"}
    with pytest.raises(InvalidInput, match="euler_a does not fit a flow matching model") as caught:
        make_scheduler(resolve("Euler a"), flow)
    assert (caught.value.status, caught.value.loc) == (400, ("scheduler",))
    assert "default, euler, euler_karras" in caught.value.message
    assert "ddim" not in caught.value.message
    wanted = resolve("FlowMatchHeunDiscreteScheduler")
    with pytest.raises(InvalidInput, match="FlowMatchHeunDiscreteScheduler does not fit") as caught:
        make_scheduler(wanted, {"_class_name": "PNDMScheduler"})
    assert (caught.value.status, caught.value.loc) == (400, ("scheduler",))
    assert "model of epsilon" in caught.value.message and "euler_a" in caught.value.message
    assert type(make_scheduler(wanted, flow)).__name__ == "FlowMatchHeunDiscreteScheduler"


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_the_list_says_which_samplers_fit(prediction: Any) -> None:
    assert DEFAULT.fits(prediction)
    listed = describe()
    assert [one["name"] for one in listed] == list(samplers())
    for one in listed:
        if prediction in one["predictions"]:
            check_fits(resolve(one["name"]), prediction)
        else:
            with pytest.raises(InvalidInput):
                check_fits(resolve(one["name"]), prediction)
