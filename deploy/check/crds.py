"""Custom resources against their real CRDs, as an API server checks them: schema and CEL rules.

The CRDs are other people's files and not part of this repository. `deploy/check/crds.sh` fetches
those of the versions in deploy/eks/versions.sh into the folder `.crds` of the root, or another that
DEPLOY_CRDS names. Without it the schemas in `schemas/` are the only check.
"""

from __future__ import annotations

import copy
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

Document = dict[str, Any]
DEFAULT = Path(__file__).resolve().parents[2] / ".crds"


@dataclass(frozen=True)
class Crd:
    """One version of a custom resource."""

    schema: Document
    deprecated: bool
    file: str


@functools.cache
def known(folder: Path | None = None) -> dict[tuple[str, str], Crd]:
    """Each version's CRD by apiVersion and kind; empty where there is no folder of them."""
    folder = folder or Path(os.environ.get("DEPLOY_CRDS", DEFAULT))
    found = {}
    for path in sorted(folder.glob("*.yaml")):
        for one in yaml.safe_load_all(path.read_text()):
            if one and one.get("kind") == "CustomResourceDefinition":
                spec = one["spec"]
                for version in spec["versions"]:
                    key = f"{spec['group']}/{version['name']}", spec["names"]["kind"]
                    schema = version["schema"]["openAPIV3Schema"]
                    found[key] = Crd(schema, version.get("deprecated", False), path.name)
    return found


def problems(document: Document) -> Iterator[str]:
    """Return the API server's complaints about a custom resource, a deprecated version included."""
    key = str(document.get("apiVersion")), str(document.get("kind"))
    crd = known().get(key)
    if crd is None:
        if key[0].partition("/")[0] in {version.partition("/")[0] for version, _ in known()}:
            yield f"{key[0]} is no version of it in the CRDs"
        return
    if crd.deprecated:
        yield f"{key[0]} is deprecated"
    errors = [*jsonschema.Draft202012Validator(_strict(key)).iter_errors(document)]
    for error in errors:
        yield f"{'.'.join(map(str, error.absolute_path)) or 'top level'}: {error.message[:200]}"
    if not errors:
        yield from _broken_rules(crd.schema, _defaulted(crd.schema, document))


@functools.cache
def _strict(key: tuple[str, str]) -> Document:
    """A CRD's schema as JSON Schema, with unknown fields refused as by strict field validation."""
    schema = copy.deepcopy(known()[key].schema)
    _close(schema)
    schema["properties"] |= {"apiVersion": {}, "kind": {}, "metadata": {}}
    return schema


def _close(node: Any) -> None:
    if not isinstance(node, dict):
        return
    if node.pop("x-kubernetes-int-or-string", False):
        for name in ("anyOf", "pattern"):
            node.pop(name, None)
        node["type"] = ["integer", "string"]
    if node.pop("nullable", False) and isinstance(node.get("type"), str):
        node["type"] = [node["type"], "null"]
    if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    node.pop("format", None)
    for child in [*node.get("properties", {}).values(), node.get("items")]:
        _close(child)
    _close(node.get("additionalProperties"))


def _defaulted(schema: Any, value: Any) -> Any:
    """A value with the schema's defaults in it, which the API server sets before it runs rules."""
    if isinstance(value, list):
        return [_defaulted(schema.get("items", {}), one) for one in value]
    if not isinstance(value, dict):
        return value
    inner = schema.get("properties", {})
    other = schema.get("additionalProperties", {})
    defaults = {name: one["default"] for name, one in inner.items() if "default" in one}
    return {
        name: _defaulted(inner.get(name, other if isinstance(other, dict) else {}), one)
        for name, one in {**defaults, **value}.items()
    }


def _rules(schema: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Document]]:
    """Place, value and rule of every CEL rule that applies to a new object."""
    if not isinstance(schema, dict):
        return
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"]:
            yield path or "top level", value, rule
    if isinstance(value, dict):
        for name, child in value.items():
            inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
            yield from _rules(inner, child, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for number, child in enumerate(value):
            yield from _rules(schema.get("items"), child, f"{path}.{number}")


def _broken_rules(schema: Document, document: Document) -> Iterator[str]:
    try:
        from celpy.adapter import json_to_cel
    except ImportError:  # not in the environment of `make deploy-tools`
        return
    for path, value, rule in _rules(schema, document, ""):
        if not _program(rule["rule"]).evaluate({"self": json_to_cel(value)}):
            yield f"{path}: {rule.get('message') or rule['rule']}"


@functools.cache
def _program(rule: str) -> Any:
    """A compiled rule, with the functions that Kubernetes has beyond CEL's own."""
    import celpy
    from celpy import celtypes

    def split(text: Any, separator: Any) -> Any:
        return celtypes.ListType(map(celtypes.StringType, str(text).split(str(separator))))

    def find(text: Any, pattern: Any) -> Any:
        found = re.search(str(pattern), str(text))
        return celtypes.StringType(found[0] if found else "")

    environment = celpy.Environment()
    functions = {"split": split, "find": find}
    return environment.program(environment.compile(rule), functions=functions)
