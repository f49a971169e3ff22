"""The Bentos build, carry model and configuration, and answer both curls."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import bentoml
import pytest
import yaml
from PIL import Image

from tests.service.server import ROOT, serve

CURLS = {
    "/txt2img": [
        *("-H", "Content-Type: application/json"),
        *("-d", '{"prompt":"View of a cyberpunk city"}'),
    ],
    "/img2img": [
        *("-H", "Content-Type: multipart/form-data", "-F", "img=@input.jpg"),
        *("-F", 'data={"prompt":"View of a cyberpunk city"}'),
    ],
}


BENTOS = ("stable_diffusion_fp32", "stable_diffusion_fp16", "stable_diffusion_neuron")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BENTOML_HOME with all Bentos."""
    folder = tmp_path_factory.mktemp("bentoml")
    environment = {**os.environ, "BENTOML_HOME": str(folder), "BENTOML_DO_NOT_TRACK": "True"}
    for file in ("bentofile.yaml", "bentofile.fp16.yaml", "bentofile.neuron.yaml"):
        command = [sys.executable, "-m", "bentoml", "build", "-f", file, "."]
        subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    return folder


def source(home: Path, name: str) -> Path:
    version = (home / "bentos" / name / "latest").read_text().strip()
    return home / "bentos" / name / version / "src"


@pytest.mark.parametrize("name", BENTOS)
def test_model_and_configuration_are_inside(home: Path, name: str) -> None:
    files = source(home, name)
    assert (files / "configuration.yaml").is_file()
    assert (files / "models/embedded/unet/diffusion_pytorch_model.safetensors").is_file()
    assert not list(files.rglob("tests")), "only what runs is inside"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("stable_diffusion_fp32", {"SD_PRECISION": "fp32"}),
        ("stable_diffusion_fp16", {"SD_PRECISION": "fp16", "SD_DEVICE": "cuda"}),
        ("stable_diffusion_neuron", {"SD_DEVICE": "neuron"}),
    ],
)
def test_the_container_is_told_what_it_runs_on(home: Path, name: str, told: dict[str, str]) -> None:
    described = yaml.safe_load((source(home, name).parent / "bento.yaml").read_text())
    given = {one["name"]: one["value"] for one in described["envs"]}
    always = {
        "BENTOML_CONFIG": "/home/bentoml/bento/src/configuration.yaml",
        "BENTOML_DO_NOT_TRACK": "True",
    }
    assert given == {**told, **always}


def test_neuron_pins_differ_only_where_its_stack_wants_it() -> None:
    lines = (ROOT / "requirements/serve.txt").read_text().split()
    usual = dict(line.split("==") for line in lines if "==" in line)
    neuron = yaml.safe_load((ROOT / "bentofile.neuron.yaml").read_text())["python"]["packages"]
    other = {
        name
        for name, version in (one.split("==") for one in neuron if "==" in one)
        if usual.get(name, version) != version
    }
    assert other == {"torch", "compel", "diffusers", "transformers"}


def test_the_built_bento_serves(home: Path, tmp_path: Path) -> None:
    target = "stable_diffusion_fp32:latest"
    settings = source(home, "stable_diffusion_fp32") / "configuration.yaml"
    environment = {"BENTOML_HOME": str(home), "BENTOML_CONFIG": str(settings)}
    with serve(tmp_path / "log", target, **environment) as server:
        for path, arguments in CURLS.items():
            output = tmp_path / "output.jpg"
            command = ["curl", "-sSf", "-X", "POST", server.url + path, *arguments]
            subprocess.run([*command, "--output", output], cwd=ROOT, check=True)
            assert Image.open(output).format == "JPEG"
            output.unlink()
        with bentoml.SyncHTTPClient(server.url) as client:
            drawn = client.txt2img({"prompt": "sea", "num_inference_steps": 2})
            assert Image.open(io.BytesIO(drawn)).size == (128, 128)
