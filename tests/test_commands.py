"""Every command that the documents print is real: make's rules do something, modules answer."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "models/**/*.md", "benchmarks/*.md")
    for path in ROOT.glob(pattern)
)
#: where a command begins: a line of its own, or in back quotes; perhaps after variables
START = r"(?:^|`)\s*(?:[A-Z_]+=\S* )*"


def printed(command: str) -> list[str]:
    """What the documents print after this, each once."""
    pattern = re.compile(START + command, re.M)
    return sorted({found for path in DOCUMENTS for found in pattern.findall(path.read_text())})


TARGETS = printed(r"make (?:[A-Z_]+=\S+ )*([a-z-]+)")
FOREIGN = {"pytest", "venv"}
MODULES = sorted({*printed(r"(?:\S*/)?python3? -m ([\w.]+)")} - FOREIGN)


def test_the_documents_are_read() -> None:
    assert {"serve", "ray", "test", "bento", "queue-demo"} <= set(TARGETS)
    assert {"runnables", "models", "hosts.queue.worker"} <= set(MODULES)


def does_something(target: str, makefile: str) -> bool:
    """Whether a target has a recipe, or is made of others that may have one."""
    rule = re.search(rf"^{target}:([^#\n]*).*\n((?:\t.*\n)*)", makefile, re.M)
    return bool(rule and (rule[1].strip() or rule[2]))


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_has_a_rule_that_does_something(target: str) -> None:
    assert does_something(target, MAKEFILE)
    command = ["make", "--dry-run", "--always-make", target]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_target_that_lost_its_rule_is_found() -> None:
    without = re.sub(r"^ray:.*\n(\t.*\n)*", "", MAKEFILE, flags=re.M)
    assert ".PHONY" in without and "ray" in without, "make says `Nothing to be done`, and 0"
    assert not does_something("ray", without)


#: Runs each module with --help in a process of its own, forked from one that has imported torch:
#: its import is most of what they take, and to take all of it down again is most of the rest.
#: Arguments: a folder for what they print, and the modules.
RUN = """
import os, runpy, sys
import runnables.assembly

folder, *modules = sys.argv[1:]
for module in modules:
    if not os.fork():
        with open(f"{folder}/{module}", "w") as printed:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
        sys.argv[1:] = ["--help"]
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(end.code or 0)
        sys.exit()
    print(module, os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str]]:
    """Each module's exit status and what it printed."""
    folder = tmp_path_factory.mktemp("help")
    command = [sys.executable, "-c", RUN, str(folder), *MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = [line.split() for line in done.stdout.splitlines()]
    return {module: (int(status), (folder / module).read_text()) for module, status in lines}


@pytest.mark.parametrize("module", MODULES)
def test_a_module_answers(answers: dict[str, tuple[int, str]], module: str) -> None:
    status, printed = answers[module]
    assert status == 0, printed
    assert "usage" in printed.lower()
