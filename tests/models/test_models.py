"""`python -m models`: import, list, verify."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from models.__main__ import main
from runnables.checkpoints import manifest
from runnables.checkpoints.catalog import CATALOG
from runnables.parameters import Profile

TinyModel = Callable[[str], Path]


def test_import_copies_and_writes_a_manifest(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path)]
    assert main([*folder, "import", str(tiny_model("sd1")), "--name", "mine"]) == 0
    assert manifest.verify(tmp_path / "mine")
    assert main([*folder, "verify", "mine"]) == 0
    assert main([*folder, "list"]) == 0
    assert "mine" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "nothing is left aside"


def test_a_damaged_model_is_told(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path)]
    main([*folder, "import", str(tiny_model("sd1")), "--name", "mine"])
    (tmp_path / "mine" / "unet" / "config.json").write_text("{}")
    assert main([*folder, "verify", "mine"]) == 1
    assert "unet/config.json" in capsys.readouterr().err


def test_a_half_copied_source_is_not_imported(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "source"))
    weights = source / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    into = tmp_path / "models"
    assert main(["--folder", str(into), "import", str(source)]) == 1
    assert "vae/diffusion_pytorch_model.safetensors" in capsys.readouterr().err
    assert not list(into.iterdir()), "nothing is left aside"


def test_import_refuses_what_differs_from_its_own_manifest(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "source"))
    manifest.write(source, source="test")
    (source / "tokenizer" / "tokenizer_config.json").write_text("{}")
    assert main(["--folder", str(tmp_path / "models"), "import", str(source)]) == 1
    assert "tokenizer_config.json" in capsys.readouterr().err


def test_import_keeps_a_profile_and_leaves_pickles(tiny_model: TinyModel, tmp_path: Path) -> None:
    source = Path(shutil.copytree(tiny_model("sd1"), tmp_path / "source"))
    (source / "profile.json").write_text('{"num_inference_steps": 7}')
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    assert main(["--folder", str(tmp_path / "models"), "import", str(source)]) == 0
    imported = tmp_path / "models" / "source"
    assert (imported / "profile.json").is_file()
    assert not list(imported.rglob("*.bin"))


@pytest.mark.parametrize("name", ["../out", ".hidden", "a/b", ""])
def test_a_name_stays_within_the_folder(
    name: str, tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "models"
    command = ["--folder", str(folder), "import", str(tiny_model("sd1")), f"--name={name}"]
    assert main(command) == 1
    assert "cannot name a model" in capsys.readouterr().err


def test_list_tells_which_are_whole(
    tiny_model: TinyModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = ["--folder", str(tmp_path)]
    for name in ("good", "bad"):
        main([*folder, "import", str(tiny_model("sd1")), "--name", name])
    (tmp_path / "bad" / "unet" / "config.json").unlink()
    shutil.copytree(tiny_model("sd1"), tmp_path / "plain")
    capsys.readouterr()
    main([*folder, "list"])
    states = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "whole" in states["good"]
    assert "damaged" in states["bad"] and "unet/config.json" in states["bad"]
    assert "no manifest" in states["plain"]


@pytest.mark.parametrize("text", ["", "[]", '{"files": []}', '{"files": {"x": {"size": 1}}}'])
def test_a_manifest_that_is_none(text: str, tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_text(text)
    with pytest.raises(manifest.Damaged, match="is not a manifest"):
        manifest.verify(tmp_path)


@pytest.mark.parametrize("source", ["/no/such", "nobody/nothing"])
def test_import_of_what_is_out_of_reach(
    source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert main(["--folder", str(tmp_path), "import", source]) == 1
    assert "could not be fetched" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_existing_name_is_not_overwritten(tiny_model: TinyModel, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    assert main(["--folder", str(tmp_path), "import", str(tiny_model("sd1")), "--name", "mine"])


def test_catalog_defaults_are_profiles() -> None:
    for entry in CATALOG.values():
        assert Profile(**entry.defaults)
        assert "/" in entry.repository


def test_the_embedded_model_is_whole() -> None:
    from runnables.checkpoints.catalog import FOLDER

    assert manifest.verify(FOLDER / "embedded")
    size = sum(path.stat().st_size for path in (FOLDER / "embedded").rglob("*.safetensors"))
    assert 10 < size / 1e6 < 32
