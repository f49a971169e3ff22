"""The WebUI's names of samplers and schedules lead to our samplers, as they act there."""

from __future__ import annotations

import pytest

from api.webui.body import GenerationBody
from api.webui.samplers import ALIASES, AUTOMATIC, SCHEDULES, resolve, sampler_list, schedule_list
from api.webui.translate import parameters
from runnables.errors import UnknownName
from runnables.parameters import TextToImage
from runnables.samplers.names import Prediction, samplers


@pytest.mark.parametrize(
    ("sampler", "schedule", "name"),
    [
        ("Euler a", "automatic", "euler_a"),
        ("k_euler_ancestral", "Automatic", "euler_a"),
        ("Euler", "Karras", "euler_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 2M", "normal", "dpmpp_2m"),
        ("DPM++ 2M Karras", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M Karras", "Exponential", "dpmpp_2m_karras"),  # the ending of the name wins
        ("dpm++ 2m sde", "", "dpmpp_2m_sde_exponential"),
        ("DPM++ 2M", "SGM Uniform", "dpmpp_2m_trailing"),
        ("DPM++ 2M", "SGMUniform", "dpmpp_2m_trailing"),
        ("UniPC", "automatic", "unipc"),
        ("default", "Karras", "default"),
        # a schedule that the sampler does not have
        ("DDIM", "normal", "ddim"),
        ("DDIM", "DDIM", "ddim"),
        ("Euler a", "Karras", "euler_a"),
        ("Euler a Karras", "", "euler_a"),
        ("LCM", "Karras", "lcm"),
        ("DPM++ 2M", "Beta", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE KL Optimal", "", "dpmpp_2m_sde_exponential"),
        # a schedule that the WebUI does not know
        ("Euler", "No such schedule", "euler"),
        ("DPM++ 2M", "No such schedule", "dpmpp_2m_karras"),
    ],
)
def test_the_two_names_of_the_webui(sampler: str, schedule: str, name: str) -> None:
    assert resolve(sampler, schedule).name == name


@pytest.mark.parametrize(
    ("sampler", "schedule", "name"),
    [
        ("DPM++ 2M", "Automatic", "dpmpp_2m"),
        ("DPM++ 2M Karras", "", "dpmpp_2m"),
        ("Euler", "Karras", "euler_karras"),
        ("Euler", "SGM Uniform", "euler"),
    ],
)
def test_a_flow_model_has_other_spacings(sampler: str, schedule: str, name: str) -> None:
    assert resolve(sampler, schedule, prediction="flow").name == name


@pytest.mark.parametrize("field", ["sampler_name", "sampler_index"])
def test_an_unknown_sampler_is_named_as_it_was_sent(field: str) -> None:
    asked = GenerationBody.model_validate({"prompt": "x", field: "Eulr b", "scheduler": "Karras"})
    with pytest.raises(UnknownName, match=r"'Eulr b'; known: .*Euler a") as caught:
        parameters(asked, TextToImage, ())
    assert caught.value.loc == (field,)


@pytest.mark.parametrize("prediction", ["epsilon", "flow"])
def test_every_sampler_that_fits_still_fits_with_any_schedule(prediction: Prediction) -> None:
    for sampler in samplers().values():
        if sampler.fits(prediction):
            for schedule in ("", *SCHEDULES):
                assert resolve(sampler.label, schedule, prediction=prediction).fits(prediction)


def test_every_alias_and_every_automatic_spacing_is_a_samplers() -> None:
    assert {*ALIASES, *AUTOMATIC} <= set(samplers())
    assert {f"{name}_{spacing}" for name, spacing in AUTOMATIC.items()} <= set(samplers())
    for name, aliases in ALIASES.items():
        for alias in aliases:
            assert resolve(alias, "Uniform").name == name


def test_the_lists_name_what_can_be_sent() -> None:
    for sampler in sampler_list():
        for name in (sampler["name"], *sampler["aliases"]):
            assert resolve(name, "Uniform").label == sampler["name"]
    spaced = {resolve("DPM++ 2M", one["name"]).name for one in schedule_list()}
    assert spaced == {
        "dpmpp_2m",
        "dpmpp_2m_karras",
        "dpmpp_2m_exponential",
        "dpmpp_2m_trailing",
    }
