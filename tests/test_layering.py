"""Imports run one way: nothing below knows HTTP, nothing above knows torch, no circle is left.

`ROOMS` declares the rooms, from the lowest to the highest, and what each may import. As a room may
only name rooms that stand above it in that table, no chain of imports can lead back up. Imports for
type checking and imports inside functions count like all others.
"""

from __future__ import annotations

import ast
import functools
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TORCH = {"torch", "diffusers", "transformers", "accelerate"}
HTTP = {"starlette", "fastapi", "uvicorn", "aiohttp", "httpx", "bentoml", "ray", "gradio"}
HOSTS = {"bentoml", "ray", "gradio"}


@dataclass(frozen=True)
class Room:
    """One room of the house.

    Attributes:
        modules: The modules and packages that lie in it; the longest name that fits decides.
        may: The rooms that it may import.
        never: The libraries that it must not import, nor load through anything it imports.
    """

    modules: tuple[str, ...]
    may: frozenset[str] = frozenset()
    never: frozenset[str] = frozenset()


def _room(modules: str, may: str = "", never: Iterable[str] = ()) -> Room:
    return Room(tuple(modules.split()), frozenset(may.split()), frozenset(never))


#: packages that are no room of their own: what lies in them has to be named
DIVIDED = ("runnables", "api")
#: what every room may import: errors, the names of samplers, parameters, settings and tickets
VALUES = "errors names values"
RUNNABLES = "samplers checkpoints upscalers families extensions accelerators engine"
#: what a package for one API's form may import
FORM = f"{VALUES} images runnable http progress generation"
ROOMS = {
    "errors": _room(
        "runnables.errors runnables.environment runnables.attention", never=HTTP | TORCH
    ),
    "names": _room("runnables.samplers.names runnables.accelerators.names", "errors", HTTP | TORCH),
    "values": _room(
        "runnables runnables.parameters runnables.settings runnables.ticket runnables.metrics "
        "runnables.collector runnables.version runnables.__main__",
        "errors names",
        HTTP | TORCH,
    ),
    "images": _room("runnables.images", VALUES, HTTP | TORCH),
    "samplers": _room("runnables.samplers", VALUES, HTTP),
    "checkpoints": _room("runnables.checkpoints", f"{VALUES} samplers", HTTP),
    "upscalers": _room("runnables.upscalers", f"{VALUES} checkpoints", HTTP),
    "families": _room("runnables.families", f"{VALUES} samplers checkpoints", HTTP),
    "extensions": _room("runnables.extensions", f"{VALUES} checkpoints families", HTTP),
    "accelerators": _room("runnables.accelerators", f"{VALUES} checkpoints families", HTTP),
    "engine": _room(
        "runnables.engine",
        f"{VALUES} images samplers upscalers families extensions accelerators",
        HTTP,
    ),
    "runnable": _room(
        "runnables.runnable runnables.assembly runnables.imports runnables.measured "
        "runnables.repeats",
        f"{VALUES} images {RUNNABLES}",
        HTTP,
    ),
    "http": _room("api api.http", f"{VALUES} images", TORCH | HOSTS),
    "progress": _room("api.progress", f"{VALUES} http", TORCH | HOSTS),
    "generation": _room("api.generation", f"{VALUES} runnable http progress", TORCH | HOSTS),
    "native": _room("api.native", FORM, TORCH | HOSTS),
    "openai": _room("api.openai", FORM, TORCH | HOSTS),
    "webui": _room("api.webui", FORM, TORCH | HOSTS),
    "jobs": _room("api.jobs", FORM, TORCH | HOSTS),
    "mcp": _room("api.mcp", f"{FORM} jobs", TORCH | HOSTS),
    "page": _room("ui ui.static", never=TORCH | HOSTS),
    "api": _room(
        "api.app api.configuration api.cors api.errors api.openapi",
        f"{FORM} native openai webui jobs mcp page",
        TORCH | HOSTS,
    ),
    "standalone": _room(
        "ui.__main__ ui.app ui.client ui.generation", "page", TORCH | {"bentoml", "ray"}
    ),
    "hosts": _room("service hosts", f"{FORM} webui api", TORCH),
    "models": _room("models", f"{VALUES} samplers checkpoints families accelerators", HTTP),
    "benchmarks": _room("benchmarks", f"{VALUES} images {RUNNABLES} runnable hosts"),
}


@dataclass
class Module:
    """What one module imports.

    Attributes:
        imports: Everything that it names in an import anywhere: modules of ours, or libraries.
        loads: Those of them that are loaded with it, parent packages included.
    """

    imports: set[str] = field(default_factory=set)
    loads: set[str] = field(default_factory=set)


class Graph:
    """The modules below a folder and their imports."""

    def __init__(self, root: Path) -> None:
        files = dict(_files(root))
        self.modules = {name: Module() for name in files}
        for name, path in files.items():
            self._read(self.modules[name], path.read_text())
            self.modules[name].imports.discard(name)

    def _read(self, module: Module, source: str) -> None:
        for node, loads in _imports(source):
            for name in self._names(node):
                module.imports.add(name)
                if loads:
                    module.loads |= {name, *_parents(name)}

    def _names(self, node: ast.Import | ast.ImportFrom) -> Iterator[str]:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in self.modules else node.module

    def circles(self) -> list[list[str]]:
        """Return chains of imports that end where they begin."""
        done: set[str] = set()
        found: list[list[str]] = []

        def follow(name: str, path: list[str]) -> None:
            if name in path:
                found.append(_turned(path[path.index(name) :]))
            elif name not in done:
                for inner in sorted(self.modules[name].imports & self.modules.keys()):
                    follow(inner, [*path, name])
                done.add(name)

        for name in sorted(self.modules):
            follow(name, [])
        return found

    def loaded_by(self, name: str) -> dict[str, str]:
        """Return everything that is loaded with a module -> the module that imports it."""
        found: dict[str, str] = {}
        unseen = [name]
        while unseen:
            here = unseen.pop()
            for inner in self.modules[here].loads - found.keys():
                found[inner] = here
                if inner in self.modules:
                    unseen.append(inner)
        return found


@functools.cache  # of ten graphs, nearly all sources are equal
def _imports(source: str) -> list[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Return every import in a source, and whether it is one that loading the source makes."""
    found: list[tuple[ast.Import | ast.ImportFrom, bool]] = []

    def read(node: ast.AST, loads: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import | ast.ImportFrom):
                found.append((child, loads))
            late = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            )
            read(child, loads and not late)

    read(ast.parse(source), True)
    return found


def _turned(circle: list[str]) -> list[str]:
    """Return a circle from its first name in the alphabet, back to it."""
    first = circle.index(min(circle))
    return [*circle[first:], *circle[:first], circle[first]]


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    tops = sorted({name.partition(".")[0] for room in ROOMS.values() for name in room.modules})
    for top in tops:
        for path in (root / f"{top}.py", *(root / top).rglob("*.py")):
            if path.exists():
                parts = path.relative_to(root).with_suffix("").parts
                yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


def _parents(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def room_of(module: str) -> str:
    """Return the room of a module."""
    around = [name for name in _parents(module) if name not in DIVIDED]
    names = [module, *reversed(around)]
    places = {name: room for room, one in ROOMS.items() for name in one.modules}
    return next((places[name] for name in names if name in places), "no room")


def problems(root: Path) -> list[str]:
    """Return what is wrong with the imports below a folder; nothing, where all is well."""
    graph = Graph(root)
    found = [" -> ".join(circle) for circle in graph.circles()]
    for name, module in graph.modules.items():
        room = room_of(name)
        if room not in ROOMS:
            found.append(f"{name} lies in no room")
            continue
        for inner in sorted(module.imports):
            other = room_of(inner) if inner in graph.modules else room
            if other != room and other not in ROOMS[room].may:
                found.append(f"{room} must not import {other}: {name} imports {inner}")
            if _library(inner) in ROOMS[room].never:
                found.append(f"{room} must not import {inner}: {name} does")
        for inner, through in graph.loaded_by(name).items():
            if _library(inner) in ROOMS[room].never and through != name:
                found.append(f"{room} must not load {inner}: {name} does, through {through}")
    return found


def _library(name: str) -> str:
    return name.partition(".")[0]


def test_rooms_name_only_rooms_that_are_lower() -> None:
    lower: set[str] = set()
    for name, room in ROOMS.items():
        assert room.may <= lower, f"{name} may import {room.may - lower}"
        lower.add(name)


def test_imports() -> None:
    assert problems(ROOT) == []


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the sources."""
    root = tmp_path_factory.mktemp("copy")
    for name, path in _files(ROOT):
        target = root / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
        assert name
    return root


PLANTED = {
    "a higher room": (
        "api/http/keys.py",
        "from api.jobs import store",
        "http must not import jobs: api.http.keys imports api.jobs.store",
    ),
    "a higher room, for type checking": (
        "runnables/samplers/table.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import runnables.engine.batch",
        "samplers must not import engine: runnables.samplers.table imports runnables.engine.batch",
    ),
    "a higher room, inside a function": (
        "runnables/images/codec.py",
        "def late():\n    import api.http.keys",
        "images must not import http: runnables.images.codec imports api.http.keys",
    ),
    "a room beside it": (
        "api/openai/answers.py",
        "from api.webui import body",
        "openai must not import webui: api.openai.answers imports api.webui.body",
    ),
    "a circle in one room": (
        "api/webui/prompts.py",
        "from api.webui import translate",
        "api.webui.prompts -> api.webui.translate -> api.webui.prompts",
    ),
    "a library": (
        "api/http/limits.py",
        "def late():\n    from torch import nn",
        "http must not import torch: api.http.limits does",
    ),
    "a library, through others": (
        "runnables/ticket.py",
        "import torch",
        "api must not load torch: api.app does, through runnables.ticket",
    ),
    "HTTP below": (
        "runnables/engine/batch.py",
        "import starlette.requests",
        "engine must not import starlette.requests: runnables.engine.batch does",
    ),
    "a new folder": ("runnables/attic.py", "", "runnables.attic lies in no room"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_reported(copied: Path, name: str) -> None:
    place, text, report = PLANTED[name]
    path = copied / place
    before = path.read_text() if path.exists() else None
    path.write_text((before or "") + f"\n{text}\n")
    try:
        assert report in problems(copied)
    finally:
        if before is None:
            path.unlink()
        else:
            path.write_text(before)


def test_a_host_starts_without_torch_and_aws() -> None:
    late = {"torch", "gradio", "api.app", "boto3"}
    code = f"import sys, service; sys.exit(bool({late} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def _naming(pattern: str, *folders: str) -> set[str]:
    """The files below these folders of `runnables` whose text has the pattern."""
    root = ROOT / "runnables"
    paths = [path for folder in folders for path in (root / folder).rglob("*.py")]
    return {str(p.relative_to(root)) for p in paths if re.search(pattern, p.read_text(), re.I)}


def test_a_family_is_known_in_few_files() -> None:
    """FLUX.2 klein has a file of its own, which shares FLUX.1's patches."""
    found = _naming("flux", ".") - {"checkpoints/catalog.py", "families/flux_2_klein.py"}
    assert found == {
        "checkpoints/families.py",
        "extensions/controlnet/flux.py",
        "families/flux.py",
    }


def test_only_families_read_a_requests_prompt() -> None:
    assert "text/prompts.py" in str(_naming(r"parameters\.prompt\b", "families"))
    rooms = ("accelerators", "checkpoints", "engine", "extensions", "samplers")
    assert _naming(r"parameters\.(negative_)?prompt\b|[\"']prompt[\"']", *rooms) == set()
