"""The ready configurations: every YAML file below deploy/ that names one of our operators."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"


@dataclass(frozen=True)
class Ready:
    """One configuration, its contents, and the operator it is for."""

    path: Path
    document: dict[str, Any]

    @property
    def operator(self) -> Path:
        """The operator's folder."""
        return DEPLOY / "operators" / str(self.document["operator"]["name"])

    @property
    def label(self) -> str:
        """The configuration's path, from deploy/ on."""
        return str(self.path.relative_to(DEPLOY))


def ready(operator: str | None = None, name: str | None = None) -> list[Ready]:
    """All configurations, or an operator's, or those whose path holds `name`."""
    found = []
    for path in sorted(DEPLOY.glob("*/*.yaml")):
        document = yaml.safe_load(path.read_text())
        if isinstance(document, dict) and {"api_version", "operator", "spec"} <= set(document):
            found.append(Ready(path, document))
    return [
        one
        for one in found
        if operator in (None, one.operator.name) and (name is None or name in one.label)
    ]
