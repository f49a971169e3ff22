"""A deployment configuration as a whole: name, operator, env and the operator's spec."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sd_bentoctl.spec import Spec, closest, explain, pattern

SETTINGS = Path(__file__).resolve().parents[3] / "runnables" / "settings.py"
#: Environment variables that the container must not be given in clear text.
SECRET = {"SD_API_KEYS": "spec.api_keys_parameter, the name of an SSM SecureString"}
S = TypeVar("S", bound=Spec)


class Wrong(ValueError):
    """A configuration with mistakes; `problems` has one line a mistake."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class OperatorName(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str


class Document(BaseModel):
    """The file's top level. Fixed by bentoctl, except that here misspelt keys are refused."""

    model_config = ConfigDict(extra="forbid")

    api_version: Literal["v1"] = Field(description="v1, the version of this file's format")
    name: Annotated[
        str, pattern(r"(?=.{2,22}$)[a-z](-?[a-z0-9])+", "stable-diffusion: a-z, 0-9, -; up to 22")
    ] = Field(description="a name for the deployment, which its resources' names begin with")
    operator: OperatorName = Field(description="the operator, like {name: aws-ec2}")
    template: Literal["terraform"] = Field("terraform", description="terraform")
    env: dict[str, str] | None = Field(None, description="environment variables, text to text")
    spec: dict[str, Any] = Field(description="the operator's settings")


def check(document: object, model: type[S]) -> tuple[Document, S]:
    """The parts of a configuration, validated.

    Raises:
        Wrong: with every mistake found, each naming its field and the fix.
    """
    if not isinstance(document, dict):
        raise Wrong(["the file is empty or not a mapping; see deploy/ec2 for examples"])
    problems: list[str] = []
    top = _validated(Document, document, "", problems)
    spec = _validated(model, document.get("spec") or {}, "spec.", problems)
    problems += env_problems(top.env or {}) if top else []
    if problems or top is None or spec is None:
        raise Wrong(problems)
    return top, spec


B = TypeVar("B", bound=BaseModel)


def _validated(model: type[B], given: object, prefix: str, problems: list[str]) -> B | None:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        problems += explain(error, model, prefix)
        return None


def env_problems(env: dict[str, str]) -> list[str]:
    """Names the service would refuse at its start, and secrets in clear text."""
    known, problems = service_settings(), []
    for name, value in env.items():
        if name in SECRET:
            problems.append(f"env.{name}: would stand in clear text; use {SECRET[name]}")
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            problems.append(f"env.{name}: is not a variable's name; use letters, digits and _")
        elif "\n" in value:
            problems.append(f"env.{name}: has several lines, which Docker cannot pass; use one")
        elif known and name.startswith("SD_") and name not in known:
            hint = closest(name, known) or "; python -m runnables lists them"
            problems.append(f"env.{name}: is not a setting of the service{hint}")
    return problems


def service_settings() -> set[str]:
    """The service's SD_* variables, read from its source (its packages are not installed here)."""
    if not SETTINGS.exists():
        return set()
    classes = [n for n in ast.parse(SETTINGS.read_text()).body if isinstance(n, ast.ClassDef)]
    body = next(n.body for n in classes if n.name == "Settings")
    fields = [n.target for n in body if isinstance(n, ast.AnnAssign)]
    return {f"SD_{target.id.upper()}" for target in fields if isinstance(target, ast.Name)}
