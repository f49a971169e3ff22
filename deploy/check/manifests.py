"""Kubernetes manifests: rendered with `kubectl kustomize`, then checked field by field.

Kubernetes' own kinds are checked against its schemas (kubernetes-validate, strictly), custom
resources against their real CRDs (crds.py) and against ours in `schemas/`, pods of custom resources
as pods, and all together against the rules of `rules.py`.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from deploy.check import crds
from deploy.check.pods import Document, Pod, pods
from deploy.check.rules import broken

ROOT = Path(__file__).resolve().parents[2]
OVERLAYS = ROOT / "deploy" / "kubernetes" / "overlays"
SCHEMAS = Path(__file__).parent / "schemas"
#: The newest version that the clusters of operators may have.
KUBERNETES = "1.36"
_POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}}


class CannotRender(RuntimeError):
    """kubectl is missing, or refuses the folder."""


def render(folder: Path) -> list[Document]:
    """The objects of a kustomization.

    Raises:
        CannotRender: with what kubectl said.
    """
    if not shutil.which("kubectl"):
        raise CannotRender("kubectl is not installed: kubernetes.io/docs/tasks/tools")
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CannotRender(f"{folder}: {done.stderr.strip()}")
    return [one for one in yaml.safe_load_all(done.stdout) if one]


def problems(documents: list[Document]) -> list[str]:
    """Everything wrong with them, one line each; empty when all is well."""
    found = [f"{label(one)}: {text}" for one in documents for text in _of_schema(one)]
    if not found:  # what is made of them may rely on the shape
        found = [f"{pod.name}: {text}" for pod in pods(documents) for text in _of_pod(pod)]
    return [*found, *(broken(documents) if not found else [])]


def label(document: Document) -> str:
    """Kind and name."""
    return f"{document.get('kind')}/{document.get('metadata', {}).get('name')}"


def _of_pod(pod: Pod) -> Iterator[str]:
    """Return Kubernetes' complaints about a RayService's pods; other kinds hold their pods."""
    if pod.name.startswith("RayService/"):
        yield from _of_schema({**_POD, "spec": pod.spec})


def _of_schema(document: Document) -> Iterator[str]:
    """Return what the schemas have against a document."""
    yield from crds.problems(document)
    custom = schema(str(document.get("apiVersion")), str(document.get("kind")))
    if custom is not None:
        for error in jsonschema.Draft202012Validator(custom).iter_errors(document):
            yield f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message}"
        return
    import kubernetes_validate  # slow: its schemas are large

    try:
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f"{'.'.join(map(str, error.path))}: {error.message}"
    except kubernetes_validate.SchemaNotFoundError:
        yield f"no schema for {document.get('apiVersion')}; write one in {SCHEMAS.name}/"


@functools.cache
def schema(api_version: str, kind: str) -> Document | None:
    """Our schema of a custom resource, closed; None for a kind that we have none of."""
    path = SCHEMAS / f"{api_version.replace('/', '_')}_{kind}.yaml"
    if not path.exists():
        return None
    given: Document = _closed(yaml.safe_load(path.read_text()))
    text = {"type": "object", "additionalProperties": {"type": "string"}}
    metadata = {name: {"type": "string"} for name in ("name", "namespace")}
    given["properties"] |= {
        "apiVersion": {"const": api_version},
        "kind": {"const": kind},
        "metadata": {
            "properties": {**metadata, "labels": text, "annotations": text},
            "required": ["name"],
            "additionalProperties": False,
        },
    }
    return given


def _closed(node: Any, branch: bool = False) -> Any:
    """The schema, every object in it closed to fields it does not name.

    A `then` adds to the object beside it, so it is closed below its first level only; conditions
    test a part of an object and stay open.
    """
    if isinstance(node, list):
        return [_closed(one) for one in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed_keyword(key, value) for key, value in node.items()}
    if "properties" in node and not branch:
        closed.setdefault("additionalProperties", False)
        closed.setdefault("type", "object")
    return closed


def _closed_keyword(key: str, value: Any) -> Any:
    if key in ("if", "not", "contains"):
        return value
    if key == "properties":
        return {name: _closed(one) for name, one in value.items()}
    return _closed(value, branch=key == "then")


def main(arguments: list[str]) -> int:
    """Check kustomizations; 1 when one is wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.check.manifests", description=main.__doc__
    )
    parser.add_argument("folders", nargs="*", help="kustomizations; all of ours without any")
    folders = parser.parse_args(arguments).folders
    wrong = 0
    with tempfile.TemporaryDirectory() as scratch:
        for name, folder in [(one, Path(one)) for one in folders] or [*everything(Path(scratch))]:
            documents = render(folder)
            found = problems(documents)
            wrong += bool(found)
            print(f"{'FAILED' if found else 'ok'} {name}: {len(documents)} objects")
            print("".join(f"  {line}\n" for line in found), end="")
    return 1 if wrong else 0


def everything(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Every overlay, and the generated kustomization of every ready EKS configuration."""
    for overlay in sorted(OVERLAYS.glob("*/kustomization.yaml")):
        yield f"overlays/{overlay.parent.name}", overlay.parent
    for path in sorted((ROOT / "deploy" / "eks").glob("*.yaml")):
        folder = scratch / path.stem
        folder.mkdir()
        generated(path, folder)
        yield f"eks/{path.name}", folder / "kubernetes" / "deployment"


def generated(path: Path, folder: Path) -> None:
    """Return the files that `bentoctl generate` writes for a configuration of operator aws-eks."""
    for part in ("tools", "operators/aws-eks"):
        entry = str(ROOT / "deploy" / part)
        if entry not in sys.path:
            sys.path.append(entry)
    from sd_aws_eks import generate
    from sd_aws_eks.spec import EksSpec
    from sd_bentoctl.document import check

    top, spec = check(yaml.safe_load(path.read_text()), EksSpec)
    given = {**spec.model_dump(mode="json"), "env": top.env or {}}
    generate(top.name, given, "terraform", str(folder), False)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
