"""Values for Terraform, written so that no text can become an expression."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADER = "# Written by bentoctl generate and bentoctl build: the next of them overwrites edits.\n\n"


#: JSON escapes that HCL does not know.
_ESCAPES = {"b": r"\u0008", "f": r"\u000c"}


def to_hcl(value: Any) -> str:
    """A JSON value as an HCL expression.

    HCL reads JSON, but for two things: `${` and `%{` begin a template in its strings, and it does
    not know the escapes \\b and \\f.
    """
    # laid out as `terraform fmt` would
    text = json.dumps(value, indent=2, sort_keys=True, separators=(",", " : "), ensure_ascii=False)
    text = re.sub(r"\\(.)", lambda escape: _ESCAPES.get(escape[1], escape[0]), text)
    return text.replace("${", "$${").replace("%{", "%%{")


def write(path: Path, values: Mapping[str, Any]) -> Path:
    """Write `name = value` lines; None becomes null, the variable's own default."""
    lines = [f"{name} = {to_hcl(value)}\n\n" for name, value in values.items()]
    path.write_text(HEADER + "".join(lines).rstrip("\n") + "\n", encoding="utf-8")
    return path


def read(path: Path, name: str) -> str | None:
    """A text that `write` wrote; None where there is none."""
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = re.search(rf'^{name} = (".*")$', text, re.M)
    return str(json.loads(found[1])) if found else None
