"""One SSL context for all calls of httpx.

Each call without a client, and each client, makes one of its own: it reads all certificates, which
is most of a call's processor time, and dozens of tests ask a server until something has happened.
"""

from __future__ import annotations

import os
import ssl
from typing import Any

from httpx._transports import default

_create = default.create_ssl_context
_made: dict[tuple[object, ...], ssl.SSLContext] = {}


def create(verify: Any = True, cert: Any = None, trust_env: bool = True) -> ssl.SSLContext:
    """Return httpx's context; if it is the one that the environment asks for, the same again."""
    if verify is not True or cert:
        return _create(verify, cert, trust_env)
    key = (trust_env, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))
    if key not in _made:
        _made[key] = _create(verify, cert, trust_env)
    return _made[key]


def share() -> None:
    """Let every call in this process use it."""
    default.create_ssl_context = create
