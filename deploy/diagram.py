"""A Mermaid flowchart of a Terraform module, drawn from its files.

Boxes are resources, grouped by the file they are in; an arrow says that one refers to the other,
directly or through locals. Security group rules are arrows themselves: who may connect to whom.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

#: Plumbing that would hide the picture: left out, with what refers to it.
_HIDDEN = re.compile(
    r"aws_(route|route_table|route_table_association|default_security_group|iam_role_policy"
    r"|iam_role_policy_attachment|eip|internet_gateway|iam_policy|kms_alias|ec2_tag"
    r"|vpc_security_group_\w+_rule|security_group_rule)\."
)
_BLOCK = re.compile(r'^resource "(\w+)" "(\w+)" \{\n(.*?)^\}', re.MULTILINE | re.DOTALL)
_LOCALS = re.compile(r"^locals \{\n(.*?)^\}", re.MULTILINE | re.DOTALL)
_LOCAL = re.compile(r"^  (\w+)\s*= (.*?)(?=^  \w+\s*=|\Z)", re.MULTILINE | re.DOTALL)
_REFERENCE = re.compile(r"\baws_\w+\.\w+")
_RULE = re.compile(r"aws_vpc_security_group_(ingress|egress)_rule\.")


@dataclass
class Module:
    """Return what the files of a folder declare."""

    #: file name -> its resources, like aws_vpc.this
    files: dict[str, list[str]] = field(default_factory=dict)
    #: resource -> its body
    bodies: dict[str, str] = field(default_factory=dict)
    locals: dict[str, str] = field(default_factory=dict)


def read(folder: Path) -> Module:
    """The module in a folder's *.tf files."""
    module = Module()
    for path in sorted(folder.glob("*.tf")):
        text = re.sub(r"(?m)^\s*#.*\n", "", path.read_text())
        for kind, name, body in _BLOCK.findall(text):
            module.files.setdefault(path.stem, []).append(f"{kind}.{name}")
            module.bodies[f"{kind}.{name}"] = body
        for body in _LOCALS.findall(text):
            module.locals.update(_LOCAL.findall(body))
    return module


def references(module: Module, text: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """The resources an expression refers to, locals followed."""
    found = {one for one in _REFERENCE.findall(text) if one in module.bodies}
    for name in set(re.findall(r"\blocal\.(\w+)", text)) - seen:
        found |= references(module, module.locals.get(name, ""), seen | {name})
    return found


def mermaid(folder: Path) -> str:
    """The flowchart's text."""
    module = read(folder)
    shown = [one for one in module.bodies if not _HIDDEN.match(one)]
    lines = ["flowchart LR"]
    for name, resources in module.files.items():
        inside = [one for one in resources if one in shown]
        if inside:
            lines.append(f"  subgraph {name}")
            lines += [f'    {_id(one)}["{_label(one)}"]' for one in inside]
            lines.append("  end")
    lines += sorted(
        f"  {_id(one)} --> {_id(other)}"
        for one in shown
        for other in references(module, _uses(module.bodies[one])) & set(shown) - {one}
        if not other.startswith("aws_vpc.")
    )
    lines += [line for one in module.bodies if _RULE.match(one) for line in _rule(module, one)]
    return "\n".join(lines) + "\n"


def _uses(body: str) -> str:
    """A body without depends_on: an order, not a use."""
    return re.sub(r"depends_on\s*=\s*\[.*?\]", "", body, flags=re.DOTALL)


def _rule(module: Module, rule: str) -> list[str]:
    """One arrow for a rule, at the end it belongs to; rules between two groups come in pairs."""
    body = module.bodies[rule]
    attributes = dict(re.findall(r"^  (\w+)\s*= (.*)$", body, re.MULTILINE))
    group = _id(attributes["security_group_id"].removesuffix(".id"))
    other = attributes.get("referenced_security_group_id")
    label = re.sub(r"[^\w ,.]", "", attributes.get("description", ""))
    if "ingress" in rule:
        source = _id(other.removesuffix(".id")) if other else "allowed([allowed_cidrs])"
        return [f'  {source} -. "{label}" .-> {group}']
    return [] if other else [f'  {group} -. "{label}" .-> world([internet])']


def _id(resource: str) -> str:
    return re.sub(r"\W", "_", resource.removeprefix("aws_"))


def _label(resource: str) -> str:
    kind, name = resource.removeprefix("aws_").split(".")
    words = kind.replace("_", " ")
    return words if name == "this" else f"{words}: {name.replace('_', ' ')}"
