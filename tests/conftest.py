"""Fixtures shared by all tests: tiny real models, and runnables that draw with them."""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from runnables.runnable import StableDiffusionRunnable
from runnables.settings import EMBEDDED_MODEL, Settings
from tests import order, tiny

if TYPE_CHECKING:
    from tests.service.server import Server

os.environ.setdefault("HF_HUB_OFFLINE", "1")
#: jobs of servers that tests start in other ways than tests.service.server does
os.environ.setdefault("SD_JOBS_DIR", tempfile.mkdtemp(prefix="jobs-"))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[Any]:
    """What is imported to collect the tests stays: the collector would look and find nothing."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: order.place(item.nodeid))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    return order.schedule(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """tiny_model(kind) is the folder of a tiny model, built once."""
    root = tmp_path_factory.mktemp("tiny")

    def folder(kind: str) -> Path:
        path = root / kind
        return path if path.exists() else tiny.build(path, kind)

    return folder


@pytest.fixture(scope="session")
def controlnets(
    tiny_model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """controlnets(kind) is a folder of "one", "two" and "pooled", for the tiny model of a kind."""
    root = tmp_path_factory.mktemp("controlnets")

    def folder(kind: str) -> Path:
        path, model = root / kind, tiny_model(kind)
        if not path.exists():
            tiny.build_controlnet(path / "one", model)
            tiny.build_controlnet(path / "two", model, seed=1)
            tiny.build_controlnet(path / "pooled", model, seed=2, global_pool_conditions=True)
        return path

    return folder


@pytest.fixture(scope="module")
def start(
    tiny_model: Callable[[str], Path],
) -> Iterator[Callable[..., StableDiffusionRunnable]]:
    """start(kind, **settings) is a started runnable; all are closed after the module.

    Each looks around some times a second, and hundreds that stayed would slow down the others.
    """
    started: list[StableDiffusionRunnable] = []

    def make(kind: str, **settings: object) -> StableDiffusionRunnable:
        given = {"model": str(tiny_model(kind)), "threads": 1, **settings}
        runnable = StableDiffusionRunnable(Settings(**given))  # type: ignore[arg-type]
        runnable.start()
        started.append(runnable)
        return runnable

    yield make
    for runnable in started:
        runnable.close()


@pytest.fixture(scope="session")
def photo() -> Image.Image:
    """A 64x64 RGB picture with structure at several scales."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    small = Image.fromarray(noise).resize((8, 8)).resize((64, 64))
    return Image.blend(small, Image.fromarray(noise), 0.3)


@pytest.fixture(scope="session")
def mask() -> Image.Image:
    """White (redrawn) in the middle."""
    picture = Image.new("L", (64, 64), 0)
    picture.paste(255, (16, 16, 48, 48))
    return picture


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One real server for all tests: `bentoml serve service:svc` with the embedded model.

    It has a ControlNet, and believes proxies of this machine.
    """
    from tests.service.server import serve  # what it imports is not in every environment

    folder = tmp_path_factory.mktemp("server")
    tiny.build_controlnet(folder / "controlnets" / "canny", Path(EMBEDDED_MODEL))
    settings = {
        "SD_CONTROLNET_DIR": str(folder / "controlnets"),
        "SD_TRUSTED_PROXIES": "127.0.0.0/8",
    }
    with serve(folder / "log", **settings) as running:
        yield running
