"""Settings that cannot work end the start: one line, without a traceback, and exit code 1."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from api import configuration
from runnables.errors import ConfigurationError
from runnables.settings import EMBEDDED_MODEL, Settings
from tests.service.server import ROOT


@pytest.mark.parametrize(
    ("setting", "value", "why"),
    [
        ("api_keys", "/nope/keys", "there is no such file"),
        ("api_keys", "./keys.txt", "there is no such file"),
        ("api_keys", "EMPTY", "holds no key"),
        ("api_keys", "BINARY", "cannot be read"),
        ("api_keys", " , ", "holds no key"),
        ("lora_dir", "/nope", "there is no folder"),
        ("controlnet_dir", "EMPTY", "there is no folder"),
        ("embeddings_dir", "/nope", "there is no folder"),
        ("upscaler_dir", "/nope", "there is no folder"),
        ("jobs_dir", "EMPTY/jobs", "there is no folder"),
        ("webhook_secret", "secret", "whsec_"),
        ("model", "/nope", "no such folder or file"),
        ("model", "./nope", "no such folder or file"),
        ("model", "nope", "no such folder or file"),
        ("models", "one=../nope", "no such folder or file"),
        ("models_dir", "/nope", "there is no folder"),
        ("refiner", "~/nope/nope", "no such folder or file"),
        ("checkpoint_config", "/nope", "there is no folder"),
        ("preview_vae", "/nope", "there is no folder"),
        ("c2pa_cert", "/nope", "belong together"),
        ("c2pa_key", "/nope", "belong together"),
    ],
)
def test_what_cannot_work_is_named(setting: str, value: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "EMPTY").write_bytes(b"")
    (tmp_path / "BINARY").write_bytes(b"\xff\xfe")
    if value.startswith(("EMPTY", "BINARY")):
        value = str(tmp_path / value)
    settings = Settings.model_validate({"jobs_dir": str(tmp_path), setting: value})
    with pytest.raises(ConfigurationError, match=why) as caught:
        configuration.check(settings)
    assert f"SD_{setting.upper()}" in caught.value.message


def test_a_certificate_that_cannot_sign(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="SD_C2PA_CERT: images cannot be signed"):
        configuration.check(
            Settings(jobs_dir=str(tmp_path), c2pa_cert="/nope/cert", c2pa_key="/nope/key")
        )


@pytest.mark.parametrize(
    "source", ["embedded", "sd-1.5", "owner/name", "owner/name@main", EMBEDDED_MODEL]
)
def test_models_that_may_be_there(source: str, tmp_path: Path) -> None:
    settings = {"model": source, "models": f"one={source}", "refiner": source}
    configuration.check(Settings.model_validate({"jobs_dir": str(tmp_path), **settings}))


def test_what_works_passes(tmp_path: Path) -> None:
    folders = dict.fromkeys(configuration.FOLDERS, str(tmp_path))
    secret = "whsec_" + "A" * 32
    configuration.check(
        Settings.model_validate(
            {**folders, "jobs_dir": str(tmp_path / "a" / "b"), "webhook_secret": secret}
        )
    )


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read(tmp_path: Path) -> None:
    tmp_path.chmod(0)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        configuration.check(Settings(lora_dir=str(tmp_path)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SD_PRECISION", "fp99"),
        ("SD_STEPS", "5"),
        ("SD_API_KEYS", "/nope/keys"),
        ("SD_MODEL", "/nope"),
    ],
)
def test_the_host_says_it_in_one_line(name: str, value: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", "import service"],
        cwd=ROOT,
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(name)
