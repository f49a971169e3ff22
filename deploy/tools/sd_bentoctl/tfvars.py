"""Values for Terraform, written so that no text can become an expression."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADER = "# Written by bentoctl generate and bentoctl build: the next of them overwrites edits.\n\n"


def to_hcl(value: Any) -> str:
    """A JSON value as an HCL expression.

    HCL reads JSON, but for two things: `${` and `%{` begin a template in its strings, and it does
    not know the escapes \\b and \\f.
    """
    text = json.dumps(value, indent=2, sort_keys=isinstance(value, dict))
    text = text.replace("\\b", "\\u0008") if "\b" in str(value) else text
    text = text.replace("\\f", "\\u000c") if "\f" in str(value) else text
    return text.replace("${", "$${").replace("%{", "%%{")


def write(path: Path, values: Mapping[str, Any]) -> Path:
    """Write `name = value` lines; None becomes null, the variable's own default."""
    lines = [f"{name} = {to_hcl(value)}\n" for name, value in values.items()]
    path.write_text(HEADER + "".join(lines), encoding="utf-8")
    return path
