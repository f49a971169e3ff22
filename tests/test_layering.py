"""The arrows run one way: nothing below knows HTTP, nothing above knows torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
#: package -> what it must not import
FORBIDDEN = {
    "runnables/samplers": {
        "bentoml",
        "starlette",
        "api",
        "runnables.engine",
        "runnables.families",
        "runnables.extensions",
    },
    "runnables/families": {"bentoml", "starlette", "api", "runnables.engine"},
    "runnables/extensions": {"bentoml", "starlette", "api", "runnables.engine"},
    "runnables/accelerators": {"bentoml", "starlette", "api", "runnables.engine"},
    "runnables/engine": {"bentoml", "starlette", "api", "runnables.runnable"},
    "runnables": {"bentoml", "starlette", "ray", "api", "service", "hosts", "models"},
    "api": {
        "torch",
        "diffusers",
        "transformers",
        "bentoml",
        "service",
        "hosts",
        "runnables.families",
        "runnables.extensions",
        "runnables.engine",
    },
    "hosts/ray": {"torch", "diffusers", "transformers", "service"},
    "hosts/queue/front": {"torch", "diffusers", "runnables.runnable", "runnables.engine"},
    "hosts/queue/worker": {"torch", "bentoml", "service", "runnables.families"},
    "ui": {"torch", "bentoml", "service", "api", "runnables", "models"},
    "models": {"bentoml", "starlette", "api", "service", "runnables.engine"},
}


def imported(path: Path) -> set[str]:
    """Modules a file imports, type-checking imports included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("package", FORBIDDEN)
def test_arrows(package: str) -> None:
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            for forbidden in FORBIDDEN[package]:
                wrong = name == forbidden or name.startswith(forbidden + ".")
                assert not wrong, f"{path.relative_to(ROOT)} imports {name}"


def test_a_host_starts_without_torch() -> None:
    late = {"torch", "gradio", "api.app"}
    code = f"import sys, service; sys.exit(bool({late} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
