"""Models are imported and served from the Hub, against a stand-in on loopback.

huggingface_hub reads its environment once, when it is imported: each case is a process.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runnables.checkpoints import manifest
from tests import hub

ROOT = Path(__file__).resolve().parents[3]
TinyModel = Callable[[str], Path]
LOAD = """
import sys, torch
from runnables.checkpoints.loading import load
checkpoint = load(sys.argv[1], dtype=torch.float32)
print(checkpoint.name, checkpoint.family, checkpoint.profile.num_inference_steps)
"""


@pytest.fixture(scope="module")
def repository(tiny_model: TinyModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a model as on the Hub: with a licence, pickles, a variant and a picture beside it."""
    folder = Path(shutil.copytree(tiny_model("sd1"), tmp_path_factory.mktemp("hub") / "model"))
    for name in ("LICENSE.md", "README.md", "unet/diffusion_pytorch_model.bin", "picture.png"):
        (folder / name).write_text("not needed to load it")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    shutil.copy(weights, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))
    return folder


@pytest.fixture(scope="module")
def endpoint(repository: Path) -> Iterator[str]:
    turbo = "stabilityai/sd-turbo"
    with hub.serve({"someone/tiny": repository, turbo: repository}) as address:
        yield address


def python(arguments: list[str], home: Path, endpoint: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def run_import(tmp_path: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["-m", "models", "--folder", str(tmp_path / "models"), "import", *arguments]
    return python(command, tmp_path / "home", endpoint)


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_import_takes_what_a_pipeline_needs(
    endpoint: str, repository: Path, tmp_path: Path
) -> None:
    done = run_import(tmp_path, endpoint, "someone/tiny@main")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "models" / "tiny"
    surplus = {"README.md", "picture.png", "unet/diffusion_pytorch_model.bin"}
    surplus.add("unet/diffusion_pytorch_model.fp16.safetensors")
    assert files(model) == files(repository) - surplus | {"manifest.json"}
    assert manifest.verify(model)
    written = manifest.read(model)
    assert written
    assert (written["source"], written["revision"]) == ("someone/tiny", hub.COMMIT)
    assert [path.name for path in model.parent.iterdir()] == ["tiny"], "nothing is left aside"


def test_import_by_catalog_name_and_variant(endpoint: str, tmp_path: Path) -> None:
    done = run_import(tmp_path, endpoint, "sd-turbo", "--variant", "fp16")
    assert done.returncode == 0, done.stderr
    model = tmp_path / "models" / "sd-turbo"
    profile = json.loads((model / "profile.json").read_text())
    assert (profile["num_inference_steps"], profile["guidance_scale"]) == (1, 0.0)
    assert {path.name for path in (model / "unet").iterdir()} == {
        "config.json",
        "diffusion_pytorch_model.fp16.safetensors",
    }


def test_an_import_that_broke_off_goes_on(endpoint: str, tmp_path: Path) -> None:
    partial = tmp_path / "models" / f".tiny-{hub.COMMIT[:12]}.partial"
    (partial / "vae").mkdir(parents=True)
    (partial / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"the first few bytes")
    done = run_import(tmp_path, endpoint, "someone/tiny")
    assert done.returncode == 0, done.stderr
    assert manifest.verify(tmp_path / "models" / "tiny")


def test_what_arrives_damaged_is_not_kept(repository: Path, tmp_path: Path) -> None:
    name = "vae/diffusion_pytorch_model.safetensors"
    with hub.serve({"someone/tiny": repository}, garble=name) as endpoint:
        done = run_import(tmp_path, endpoint, "someone/tiny")
    assert done.returncode == 1
    assert f"{name} arrived damaged" in done.stderr
    assert not list((tmp_path / "models").iterdir())


def test_no_such_repository(endpoint: str, tmp_path: Path) -> None:
    done = run_import(tmp_path, endpoint, "someone/else")
    assert done.returncode == 1
    assert "someone/else could not be fetched" in done.stderr
    assert "Traceback" not in done.stderr


def test_load_from_the_hub_then_without_it(repository: Path, tmp_path: Path) -> None:
    with hub.serve({"stabilityai/sd-turbo": repository}) as endpoint:
        online = python(["-c", LOAD, "stabilityai/sd-turbo@main"], tmp_path, endpoint)
    assert online.stdout.split() == ["sd-turbo", "stable-diffusion", "1"], online.stderr
    offline = python(["-c", LOAD, "stabilityai/sd-turbo@main"], tmp_path, endpoint)
    assert offline.stdout == online.stdout, offline.stderr
    assert "serving what was fetched before" in offline.stderr
