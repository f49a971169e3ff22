"""A look at whether the server has to stop.

Hosts run their shutdown hooks only after every response has been sent, so what streams for long
must look by itself.
"""

from __future__ import annotations

import signal


def stopping() -> bool:
    """Return True from SIGTERM on, under uvicorn (whose handler is a method of its server)."""
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))
