"""Every package that our code imports is declared where that code is installed."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from hosts.queue.local import stand_in

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = ROOT / "requirements"
#: importable from the repository, or from a folder that is put on sys.path
OURS = {"api", "benchmarks", "deploy", "hosts", "models", "runnables", "service", "tests", "ui"}
OURS |= {"operator_config", "sd_aws_ec2", "sd_aws_eks", "sd_bentoctl"}
#: modules of packages that this environment does not have
ELSEWHERE = {"bentoctl": "bentoctl", "gevent": "gevent", "locust": "locust"}
ELSEWHERE |= {"optimum": "optimum-neuron", "cosmic_ray": "cosmic-ray"}
LOAD = ("benchmarks/locustfile.py", "benchmarks/locust_images.py", "tests/benchmarks/end_after.py")
MUTANTS = "tests/mutants.py"
QUANTIZE = "runnables/checkpoints/quantization.py"
NEURON = ("runnables/accelerators/neuron", "tests/neuron")
SERVE = (
    "service.py",
    "api",
    "runnables",
    "hosts/host.py",
    "hosts/banner.py",
    "hosts/queue/worker",
    "ui/static.py",
    "models",
)
#: what `python -m deploy.check` is made of; the checks of manifests run beside the tests
STEPS = ("__main__", "inventory", "provider", "ready", "stand_in", "steps", "terraform")
APPLYING = tuple(f"deploy/check/{name}.py" for name in STEPS)
#: what is installed together -> (its code, what of that is installed elsewhere)
CODE: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "serve": (SERVE, (*NEURON, QUANTIZE, "models/training")),
    "quantize": ((QUANTIZE,), ()),
    "neuron": (("runnables/accelerators/neuron", "models"), ("models/training",)),
    "ray": (("hosts/ray",), ()),
    "ui": (("ui",), ()),
    "load": (LOAD, ()),
    "queue-demo": (("hosts/queue/local",), ()),
    "test": (
        ("tests", "benchmarks", "deploy/check"),
        (*LOAD, *NEURON, MUTANTS, "tests/clients/generated"),
    ),
    "mutants": ((MUTANTS,), ()),
    "deploy": (("deploy/tools", "deploy/operators"), ()),
    "deploy-check": (APPLYING, ()),
}


def modules(source: str) -> Iterator[str]:
    """Every module that the source imports, by its full name; names taken from one, too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(source: str, known: dict[str, list[str]]) -> dict[str, set[str]]:
    """Module -> the packages that may bring it, for every one that is not ours or Python's."""
    found = {}
    for module in modules(source):
        top = module.partition(".")[0]
        if top not in OURS | set(sys.stdlib_module_names):
            brought = known.get(top) or [ELSEWHERE.get(top, top)]
            found[module] = {plain(name) for name in owners(module, brought)}
    return found


def owners(module: str, among: list[str]) -> list[str]:
    """The packages that have the module itself, as several share a name like `opentelemetry`."""
    parts = module.split(".")
    for count in range(len(parts), 1, -1):
        path = "/".join(parts[:count])
        places = {f"{path}.py", f"{path}/__init__.py"}
        if having := [one for one in among if contents(one) & places]:
            return having
    return among


@cache
def contents(package: str) -> set[str]:
    """The files of an installed package."""
    try:
        return {str(file) for file in distribution(package).files or ()}
    except PackageNotFoundError:
        return set()


def plain(name: str) -> str:
    """A package's name as pip compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(file: Path) -> set[str]:
    """The packages of a requirements file and of those that it includes."""
    found: set[str] = set()
    for line in file.read_text().splitlines():
        if line.startswith("-r "):
            found |= declared(file.parent / line.split()[1])
        elif name := re.match(r"[\w.-]+", line):
            found.add(plain(name[0]))
    return found


def files(paths: Iterable[str], without: Iterable[str]) -> Iterator[Path]:
    left_out = [ROOT / path for path in without]
    for path in (ROOT / name for name in paths):
        for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
            if not any(file.is_relative_to(one) for one in left_out):
                yield file


def missing(name: str, available: set[str]) -> dict[str, str]:
    """Module -> the first file that imports it, for every one that nothing available brings."""
    known = dict(packages_distributions())
    found: dict[str, str] = {}
    for file in files(*CODE[name]):
        for module, brought in packages(file.read_text(), known).items():
            if not brought & available:
                found.setdefault(module, str(file.relative_to(ROOT)))
    return found


@pytest.mark.parametrize("name", CODE)
def test_what_is_imported_is_declared(name: str) -> None:
    available = declared(REQUIREMENTS / f"{name}.txt")
    if name.startswith("deploy"):
        available.add("bentoctl")  # the Makefile installs it, with --no-deps
    assert missing(name, available) == {}


def test_the_neuron_bento_declares_what_it_imports() -> None:
    bento = yaml.safe_load((ROOT / "bentofile.neuron.yaml").read_text())
    available = {plain(re.split(r"[\[=]", line)[0]) for line in bento["python"]["packages"]}
    assert missing("serve", available) == {}


def test_an_import_that_is_not_declared_is_found() -> None:
    known = {"yaml": ["PyYAML"]}
    assert packages("import yaml.x, os, api.app", known) == {"yaml.x": {"pyyaml"}}
    assert packages("from strange import thing", known) == {"strange.thing": {"strange"}}


def test_the_queue_demo_starts_a_stand_in_that_is_installed_for_it() -> None:
    assert stand_in.KINDS[0] in declared(REQUIREMENTS / "queue-demo.txt")


def needed(packages: Iterable[str]) -> set[str]:
    """These packages and all that they need in this environment."""
    found: set[str] = set()
    left = [Requirement(one) for one in packages]
    while left:
        one = left.pop()
        new = {plain(one.name), *(f"{plain(one.name)}[{extra}]" for extra in one.extras)} - found
        found |= new
        for requirement in map(Requirement, (new and distribution(one.name).requires) or ()):
            environments = [{"extra": extra} for extra in ("", *one.extras)]
            marker = requirement.marker
            if marker is None or any(marker.evaluate(chosen) for chosen in environments):
                left.append(requirement)
    return {name for name in found if "[" not in name}


def test_every_version_is_pinned() -> None:
    """Of the packages that come along, too; else an install of tomorrow differs from today's."""
    pinned: dict[str, str] = {}
    for line in (REQUIREMENTS / "constraints.txt").read_text().splitlines():
        requirement = Requirement(line)
        pinned[plain(requirement.name)] = str(requirement.specifier)
    lines = [
        line
        for name in ("serve", "ray", "queue-demo", "quantize", "ui", "test")
        for line in (REQUIREMENTS / f"{name}.txt").read_text().splitlines()
        if line and not line.startswith(("#", "-r"))
    ]
    every = needed(lines) - {"setuptools"}
    assert len(every) > 200
    loose = {name: version(name) for name in every}
    loose = {name: v for name, v in loose.items() if pinned.get(name) != f"=={v.split('+')[0]}"}
    assert not loose
