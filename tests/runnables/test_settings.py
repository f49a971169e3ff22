"""Settings come from SD_* variables; mistakes stop the start."""

from __future__ import annotations

from pathlib import Path

import pytest

from runnables.accelerators import choose
from runnables.errors import ConfigurationError
from runnables.parameters import Profile, TextToImage
from runnables.settings import Settings


def test_variables_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_MAX_BATCH", "8")
    assert Settings.from_environment().max_batch == 8


def test_an_unknown_variable_is_refused_with_a_suggestion(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_PRECISON", "fp16")
    with pytest.raises(ConfigurationError, match="did you mean SD_PRECISION"):
        Settings.from_environment()


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SD_PRECISION", "fp8")
    with pytest.raises(ConfigurationError, match="SD_PRECISION"):
        Settings.from_environment()


def test_every_setting_is_described() -> None:
    table = Settings.describe()
    for name, field in Settings.model_fields.items():
        assert f"SD_{name.upper()}" in table
        assert field.description
    assert "auto, cuda, neuron, cpu" in table, "allowed values are listed"
    assert "SD_THREADS                 0 " in table, "a default of 0 is told from none"


def test_the_page_of_settings_is_up_to_date() -> None:
    page = Path(__file__).parents[2] / "docs" / "settings.md"
    assert page.read_text() == Settings.page() + "\n", "write it: see the page's first lines"


def test_fp16_on_the_cpu_is_refused_with_a_reason() -> None:
    with pytest.raises(ConfigurationError, match="half precision is slower"):
        choose(Settings(device="cpu", precision="fp16"))


def test_profile_fills_what_a_request_leaves_open() -> None:
    profile = Profile(num_inference_steps=4, guidance_scale=1.5)
    resolved = TextToImage(prompt="x", guidance_scale=3).resolve(profile)
    assert resolved.num_inference_steps == 4
    assert resolved.guidance_scale == 3
    assert resolved.seed is not None
