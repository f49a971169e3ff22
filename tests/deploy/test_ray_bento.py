"""The Bentos with Ray inside have what the others have, Ray's own pin, and the host."""

from __future__ import annotations

import fnmatch

import pytest

from deploy.ray.bento import ROOT, bentofile

PIN = next(
    line for line in (ROOT / "requirements/ray.txt").read_text().splitlines() if line[:3] == "ray"
)


@pytest.mark.parametrize("kind", ["fp32", "fp16", "neuron"])
def test_a_bento_with_ray(kind: str) -> None:
    options = bentofile(kind)
    assert options["name"] == f"stable_diffusion_{kind}_ray"
    packages = options["python"]["packages"]
    assert PIN in packages and "requirements_txt" not in options["python"]
    assert any(one.startswith("torch==") for one in packages)
    assert not [one for one in packages if one.startswith(("-", "#"))]
    host = [str(path.relative_to(ROOT)) for path in (ROOT / "hosts/ray").glob("*.py")]
    patterns = [one.removeprefix("/").replace("**", "*") for one in options["include"]]
    for path in [*host, "deploy/ray/serve.yaml", "runnables/settings.py", "service.py"]:
        taken = [p for p in patterns if fnmatch.fnmatch(path, p)]
        assert taken, f"{path} is not in the Bento"


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(FileNotFoundError, match=r"bentofile\.fp8\.yaml"):
        bentofile("fp8")
