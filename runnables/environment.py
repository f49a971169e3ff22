"""All settings are environment variables, and each is declared once.

A variable with the prefix that is not declared stops the start with a suggestion, so that no typing
mistake leaves a setting at its default unnoticed.
"""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from typing import Literal, Self, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from runnables.errors import ConfigurationError

ROOT = Path(__file__).resolve().parent.parent


class EnvironmentSettings(BaseSettings):
    """Settings are read from variables with a prefix (`env_prefix`), or passed by name in tests."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def from_environment(cls) -> Self:
        """Read the variables. Raise ConfigurationError naming the one that is unknown or wrong."""
        cls._refuse_unknown()
        try:
            return cls()
        except ValidationError as error:
            first = error.errors()[0]
            name = cls._variable(str(first["loc"][0]))
            raise ConfigurationError(f"{name}: {first['msg']}", loc=(name,)) from error

    @classmethod
    def describe(cls) -> str:
        """Return a table of every variable, its default and its meaning."""
        return "\n".join(f"{name:26} {default:12} {text}" for name, default, text in cls.rows())

    @classmethod
    def rows(cls) -> list[tuple[str, str, str]]:
        """Return every variable with its default and its meaning, allowed values included."""
        return [
            (cls._variable(name), _shown(field), f"{field.description or ''}{_choices(field)}")
            for name, field in cls.model_fields.items()
        ]

    @classmethod
    def _variable(cls, field: str) -> str:
        return f"{cls.model_config['env_prefix']}{field.upper()}"

    @classmethod
    def _refuse_unknown(cls) -> None:
        prefix = cls.model_config["env_prefix"]
        for variable in os.environ:
            name = variable.removeprefix(prefix).lower()
            if variable.startswith(prefix) and name not in cls.model_fields:
                close = difflib.get_close_matches(name, cls.model_fields, n=1)
                hint = f"; did you mean {cls._variable(close[0])}?" if close else ""
                raise ConfigurationError(f"{variable} is not a setting{hint}", loc=(variable,))


def _shown(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if field.default in (None, "") or field.default_factory:
        return "-"
    inside = str(field.default).startswith(f"{ROOT}{os.sep}")
    return "(embedded)" if inside else str(field.default).removesuffix(".0")


def _choices(field: FieldInfo) -> str:
    if get_origin(field.annotation) is not Literal:
        return ""
    return f". One of {', '.join(get_args(field.annotation))}"
