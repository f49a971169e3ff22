"""A stop that finishes what was accepted before the server closes its socket.

Servers close the socket first, and run their shutdown hooks only after every response has been
sent. A supervisor that holds the socket, too, then leaves new connections without an answer.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

_begun = threading.Event()


def stopping() -> bool:
    """Return True from SIGTERM on, and from Ctrl-C under uvicorn.

    What streams for long must look by itself: uvicorn waits for its end.
    """
    server = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return _begun.is_set() or bool(getattr(server, "should_exit", False))


def finish_first(finish: Callable[[], None]) -> None:
    """Call a function on SIGTERM, and only then the server's handler.

    It is to be called once the server has set its handler, on the main thread; elsewhere and
    without a handler nothing changes. The function runs on a thread of its own, and requests are
    answered meanwhile.
    """
    close = signal.getsignal(signal.SIGTERM)
    if not callable(close) or threading.current_thread() is not threading.main_thread():
        return

    def end() -> None:
        try:
            finish()
        finally:
            close(signal.SIGTERM, None)

    def begin(number: int, frame: object) -> None:
        if not _begun.is_set():
            _begun.set()
            threading.Thread(target=end, name="stop").start()

    signal.signal(signal.SIGTERM, begin)
