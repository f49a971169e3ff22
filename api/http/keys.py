"""API keys, which are kept as hashes and compared in constant time, each with its limits.

`python -m api.http.keys new --name mobile --rate 60 --concurrency 4` makes one: it prints the key,
once, and the line for the file that SD_API_KEYS names:

    SHA256-OF-THE-KEY name=mobile rate=60 concurrency=4 weight=2 quota=5000 models=tiny,large

A line may have the hash alone; `#` begins a comment. The keys are random and long, so that a plain
hash is enough: there is nothing to guess that a slow hash would protect.
"""

from __future__ import annotations

import argparse
import base64
import binascii
import hashlib
import hmac
import logging
import os
import re
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from api.http.limits import Limit
from api.http.usage import Usage
from runnables.errors import ConfigurationError, Forbidden, OverCapacity, Unauthorized, UnknownName
from runnables.ticket import ANYBODY, Caller

logger = logging.getLogger(__name__)

SETTING = "SD_API_KEYS"
#: what the name of a file begins with, where it is not in the folder of the service
PATHS = ("/", "./", "../", "~")
WANTED = "an API key is needed: Authorization: Bearer KEY, or x-api-key: KEY"


def _word(text: str) -> str:
    if not re.fullmatch(r"[^\s#]{0,100}", text):
        raise ValueError("no spaces, no #, at most 100 characters")
    return text


Word = Annotated[str, AfterValidator(_word)]  # it can stand in a line of the file


class Key(BaseModel):
    """One key: a line of the file.

    Attributes:
        rate: The most requests in any minute; None means no limit.
        concurrency: The most requests at a time; None means no limit.
        weight: The key's share of the machine while others wait, relative to their weights.
        quota: The most cost units in a calendar month (UTC); None means no limit.
        models: The models that it may use; none named means all.
        operator: Whether it may load and unload models.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    hash: str = Field(pattern="^[0-9a-f]{64}$")
    name: Word = ""
    rate: int | None = Field(None, ge=1)
    concurrency: int | None = Field(None, ge=1)
    weight: float = Field(1.0, gt=0, le=1000, allow_inf_nan=False)
    quota: float | None = Field(None, gt=0, allow_inf_nan=False)
    models: tuple[Word, ...] = ()
    operator: bool = False

    @field_validator("models", mode="before")
    @classmethod
    def _split(cls, models: object) -> object:
        return tuple(filter(None, models.split(","))) if isinstance(models, str) else models

    def line(self) -> str:
        """Return the key as it stands in the file."""
        options = self.model_dump(exclude={"hash"}, exclude_defaults=True)
        if self.models:
            options["models"] = ",".join(self.models)
        return " ".join([self.hash, *(f"{name}={value}" for name, value in options.items())])


class Keys:
    """The keys that are let in. Without any, everybody is let in.

    Args:
        configured: Keys separated by commas, or the name of a file with one line per key.
        folder: Where the use of keys with a quota is kept.
        by_address: Whether callers without a key are told apart by their addresses.

    Raises:
        ConfigurationError: As `read` raises it, or quotas cannot be kept.
    """

    def __init__(
        self, configured: str, folder: Path | None = None, *, by_address: bool = False
    ) -> None:
        self._by_address = by_address
        self._keys = {key.hash: key for key in read(configured)}
        self._limits = {key.hash: Limit(key.rate, key.concurrency) for key in self._keys.values()}
        self._usage = _usage(self._keys.values(), folder)
        if not self._keys:
            logger.warning(
                "%s is not set: the service is open to everybody who reaches it", SETTING
            )

    def check(self, headers: Mapping[str, str]) -> str:
        """Accept `Authorization: Bearer KEY`, `x-api-key: KEY`, and the key as Basic password.

        Returns:
            The owner: the key's hash, or "" where everybody is let in.

        Raises:
            Unauthorized: Keys are configured and this is none of them.
        """
        if not self._keys:
            return ""
        sent = _hash(headers.get("x-api-key") or _token(headers.get("authorization", "")))
        matches = [hmac.compare_digest(sent, known) for known in self._keys]
        if not any(matches):  # all are compared, so that the time shows nothing
            raise Unauthorized(WANTED)
        return sent

    def check_operator(self, headers: Mapping[str, str]) -> None:
        """Accept an operator's key; where there are no keys, everybody is let in.

        Raises:
            Unauthorized, Forbidden: There are keys, and this is none of an operator.
        """
        owner = self.check(headers)
        if owner and not self._keys[owner].operator:
            raise Forbidden(f"this needs an operator's key: operator=true in the file of {SETTING}")

    @property
    def owners(self) -> list[str]:
        """Everybody who may own something: the hashes of all keys; "" where there is no key."""
        return list(self._keys) or [""]

    def name(self, owner: str) -> str:
        """Return the name of an owner's key; the beginning of its hash where it has none."""
        return (self._keys[owner].name or owner[:8]) if owner in self._keys else ""

    def spend(self, headers: Mapping[str, str]) -> str:
        """Check the key as `check` does, and count a request against its rate.

        Raises:
            Unauthorized, OverCapacity: The request is not let in.
        """
        owner = self.check(headers)
        if owner:
            self.check_quota(owner)
            self._limits[owner].spend()
        return owner

    def check_model(self, owner: str, name: str) -> None:
        """Check that a key may use a model.

        Raises:
            UnknownName: It may not; the message has the names that it may use.
        """
        models = self._keys[owner].models if owner else ()
        if models and name not in models:
            raise UnknownName(
                f"this key may not use the model {name!r}, but: {', '.join(models)}",
                loc=("model",),
            )

    def caller(self, owner: str, address: str = "") -> Caller:
        """Return on whose behalf the engine serves an owner's request."""
        if owner:
            return Caller(owner, self._keys[owner].weight) if owner in self._keys else Caller(owner)
        return Caller(address) if self._by_address else ANYBODY

    def used(self, owner: str, units: float) -> None:
        """Count the cost units of a finished request against the key's quota."""
        if self._usage and owner in self._keys and self._keys[owner].quota:
            self._usage.add(owner, units)

    def close(self) -> None:
        """Write down what was counted against quotas last."""
        if self._usage:
            self._usage.close()

    def check_quota(self, owner: str) -> None:
        """Check that a key has cost units left; one that is gone has no quota.

        Raises:
            OverCapacity: It has used all of this month.
        """
        quota = self._keys[owner].quota if owner in self._keys else None
        if self._usage and quota and self._usage.of(owner) >= quota:
            raise OverCapacity(
                f"this key has used its {quota:g} cost units of this month",
                retry_after=self._usage.month_left_s,
            )

    @contextmanager
    def admitted(self, headers: Mapping[str, str]) -> Iterator[str]:
        """Do as `spend` does, and occupy one of the key's places for as long as the block runs.

        Raises:
            Unauthorized, OverCapacity: The request is not let in.
        """
        owner = self.check(headers)
        if not owner:
            yield owner
            return
        with self._limits[owner].occupied():
            self.check_quota(owner)
            self._limits[owner].spend()
            yield owner


def _usage(keys: Iterable[Key], folder: Path | None) -> Usage | None:
    """Return where quotas are counted; None where no key has one."""
    if folder is None or not any(key.quota for key in keys):
        return None
    try:
        return Usage(folder)
    except (OSError, sqlite3.Error) as error:
        why = f"{SETTING} has quotas, whose use cannot be kept in {folder}: {error}"
        raise ConfigurationError(why, loc=(SETTING,)) from error


def read(configured: str) -> list[Key]:
    """Return the keys of SD_API_KEYS: none where it is empty.

    Raises:
        ConfigurationError: Something is configured, but no key is in it, or a line is wrong, or
            the file cannot be read.
    """
    if os.path.isfile(configured):  # pathlib's would raise for a list longer than a file name
        keys = _of_file(Path(configured))
    elif configured.startswith(PATHS):  # or a mistyped name would become a key
        raise ConfigurationError(f"{SETTING}={configured}: there is no such file", loc=(SETTING,))
    else:
        keys = [Key(hash=_hash(key)) for one in configured.split(",") if (key := one.strip())]
    if configured and not keys:  # an empty file must not open the door
        raise ConfigurationError(f"{SETTING} holds no key", loc=(SETTING,))
    return keys


def _of_file(path: Path) -> list[Key]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = f"{SETTING}={path} cannot be read: {error}"
        raise ConfigurationError(why, loc=(SETTING,)) from error
    return [key for number, line in enumerate(lines, 1) for key in _parse(line, number)]


def _parse(line: str, number: int) -> list[Key]:
    """Return the key of a line, or nothing where there is only a comment."""
    words = line.partition("#")[0].split()
    if not words:
        return []
    options = dict(word.partition("=")[::2] for word in words[1:])
    try:
        return [Key.model_validate({"hash": words[0].lower(), **options})]
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        message = f"{SETTING}, line {number}: {field}: {first['msg']}"
        raise ConfigurationError(message, loc=(SETTING,)) from error


def _token(authorization: str) -> str:
    """Return the key; the scheme's name is case-insensitive (RFC 9110, section 11.1)."""
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    return _password(token.strip()) if scheme.lower() == "basic" else ""


def _password(token: str) -> str:
    """Return the password of Basic authentication (RFC 7617), which WebUI clients use."""
    try:
        return base64.b64decode(token, validate=True).decode().partition(":")[2]
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def new(name: Word = "", **limits: Any) -> tuple[str, Key]:
    """Return a random key, and what the file keeps of it.

    Args:
        limits: The fields of `Key` beside its hash and name.
    """
    secret = f"sd_{secrets.token_urlsafe(32)}"
    return secret, Key(hash=_hash(secret), name=name, **limits)


def main(arguments: list[str] | None = None) -> None:
    """Run the command, which makes a key."""
    parser = argparse.ArgumentParser(prog="python -m api.http.keys", description="API keys")
    making = parser.add_subparsers(required=True).add_parser("new", help="make a key")
    making.add_argument("--name", help="whose it is, without spaces")
    making.add_argument("--rate", help="requests per minute; default: no limit")
    making.add_argument("--concurrency", help="at a time; default: no limit")
    making.add_argument("--weight", help="share while others wait; default: 1")
    making.add_argument("--quota", help="cost units per month; default: no limit")
    making.add_argument("--models", help="comma-separated; default: all")
    making.add_argument("--operator", action="store_true", help="may load and unload models")
    named = vars(parser.parse_args(arguments)).items()
    try:
        secret, key = new(**{name: value for name, value in named if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        making.error(f"argument --{first['loc'][0]}: {first['msg']}")
    print(f"key (shown once, for the client): {secret}")
    print(f"line (for the file {SETTING} names): {key.line()}")


if __name__ == "__main__":
    main()
