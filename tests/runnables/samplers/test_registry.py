"""Names that other programs use lead to our samplers."""

from __future__ import annotations

import pytest

from runnables.samplers import UnknownSampler, resolve, resolve_webui, samplers
from runnables.samplers.registry import WEBUI_SPACINGS


@pytest.mark.parametrize(
    ("sampler", "spacing", "name"),
    [
        ("Euler a", "automatic", "euler_a"),
        ("k_euler_ancestral", "Automatic", "euler_a"),
        ("Euler", "Karras", "euler_karras"),
        ("DPM++ 2M", "Automatic", "dpmpp_2m_karras"),
        ("DPM++ 2M", "Uniform", "dpmpp_2m"),
        ("DPM++ 2M Karras", "Automatic", "dpmpp_2m_karras"),
        ("dpm++ 2m sde", "", "dpmpp_2m_sde_exponential"),
        ("DPM++ 2M", "SGM Uniform", "dpmpp_2m_trailing"),
        ("UniPC", "automatic", "unipc"),
        ("default", "Karras", "default"),
    ],
)
def test_the_two_names_of_the_webui(sampler: str, spacing: str, name: str) -> None:
    assert resolve_webui(sampler, spacing) == name


@pytest.mark.parametrize(
    ("sampler", "spacing"), [("DPM adaptive", ""), ("Euler", "Beta"), ("LCM", "Karras")]
)
def test_what_is_not_there_is_not_replaced(sampler: str, spacing: str) -> None:
    with pytest.raises(UnknownSampler):
        resolve_webui(sampler, spacing)


def test_every_sampler_has_its_automatic_spacing() -> None:
    for name in samplers():
        assert resolve_webui(name)


def test_every_alias_is_one_samplers() -> None:
    for sampler in samplers().values():
        for alias in sampler.also:
            assert resolve(alias) == sampler.name


def test_every_spacing_of_the_webui_is_somebodys() -> None:
    for spacing in WEBUI_SPACINGS:
        assert resolve_webui("DPM++ 2M", spacing)
