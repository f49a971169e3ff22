"""The threads that decode images: a few, so that many uploads at once cost no more memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

AT_ONCE = 2
_THREADS = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="decode")


async def decoded(decode: Callable[..., T], *arguments: Any, **options: Any) -> T:
    """Call a function that decodes, in one of these threads."""
    call = partial(decode, *arguments, **options)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, call)
