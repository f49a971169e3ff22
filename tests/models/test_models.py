"""`python -m models`: import, list, verify."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from models import manifest
from models.__main__ import main
from models.catalog import CATALOG
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
    from models.catalog import FOLDER

    assert manifest.verify(FOLDER / "embedded")
    size = sum(path.stat().st_size for path in (FOLDER / "embedded").rglob("*.safetensors"))
    assert 10 < size / 2**20 < 20
