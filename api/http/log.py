"""Log lines: as text, or as JSON with the request that they belong to."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime

#: id and key name of the request that is being answered; "" outside of any
request_id: ContextVar[str] = ContextVar("request_id", default="")
key_name: ContextVar[str] = ContextVar("key_name", default="")

TEXT = "%(asctime)s %(name)s: %(message)s"
#: loggers of others that have handlers of their own
OTHERS = ("bentoml", "uvicorn", "uvicorn.error", "uvicorn.access", "py.warnings", "ray.serve")


class Text(logging.Formatter):
    """One line per message: control characters, which could forge a line, are escaped.

    Records of our own texts may have the attribute `several_lines`.
    """

    def __init__(self) -> None:
        super().__init__(TEXT)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, to which a traceback is added in lines of its own."""
        if not getattr(record, "several_lines", False):
            record.message = "".join(map(_escaped, record.message))
        return super().formatMessage(record)


class Json(logging.Formatter):
    """One JSON object per message: time, level, logger, message, and what is known beside it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the object in one line; a record's `fields` become its own."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "request_id": request_id.get() or None,
            "key": key_name.get() or None,
            "error": self.formatException(record.exc_info) if record.exc_info else None,
            **getattr(record, "fields", {}),
        }
        return json.dumps({name: value for name, value in entry.items() if value is not None})


def _escaped(character: str) -> str:
    plain = character.isprintable() or character == "\t"
    return character if plain else character.encode("unicode_escape").decode()


def configure(
    names: Sequence[str], form: str, handlers: Sequence[logging.Handler] | None = None
) -> None:
    """Send the lines of our loggers to stderr, or to these handlers, in a form: text or json.

    As JSON the lines of others are formatted as well, Python's warnings among them.
    """
    formatter = Json() if form == "json" else Text()
    stderr = logging.StreamHandler(sys.stderr)
    for handler in handlers or [stderr]:
        handler.setFormatter(formatter)
    for name in names:
        log = logging.getLogger(name)
        log.setLevel(logging.INFO)
        log.handlers = list(handlers or [stderr])
        log.propagate = False
    if form == "json":
        # before the libraries are imported: their bars are no lines of JSON
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        logging.captureWarnings(True)
        root = logging.getLogger()
        root.handlers = root.handlers or [stderr]
        for name in ("", *OTHERS):
            for handler in logging.getLogger(name).handlers:
                handler.setFormatter(formatter)
