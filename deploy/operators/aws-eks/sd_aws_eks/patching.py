"""Kustomizations as documents: JSON patches, images, and YAML that people can read."""

from __future__ import annotations

from typing import Any

import yaml

Document = dict[str, Any]
Changes = list[tuple[str, Any]]
HEADER = "# Written by bentoctl generate and bentoctl build: the next of them overwrites edits.\n"


def patch(kind: str, changes: Changes, name: str | None = None) -> Document:
    """A JSON patch on the objects of this kind: `add` also replaces, None removes."""
    operations = [
        {"op": "remove", "path": path}
        if value is None
        else {"op": "add", "path": path, "value": value}
        for path, value in changes
    ]
    target = {"kind": kind, **({"name": name} if name else {})}
    return {"target": target, "patch": dump(operations)}


def image(name: str, uri: str) -> Document:
    """An entry of `images`: what the tree calls the image, and the image."""
    named, at, digest = uri.partition("@")
    if at:
        return {"name": name, "newName": named, "digest": digest}
    named, _, tag = uri.rpartition(":")
    return {"name": name, "newName": named, "newTag": tag}


def escaped(key: str) -> str:
    """A key inside a JSON pointer (RFC 6901)."""
    return key.replace("~", "~0").replace("/", "~1")


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, and no aliases: people read these files."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def dump(document: Any) -> str:
    """YAML."""
    return str(yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=100))
