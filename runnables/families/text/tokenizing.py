"""Tokenizers are used by one thread at a time.

Requests are checked in the threads that submit them while the engine's thread encodes prompts. A
fast tokenizer keeps padding and truncation as a state of its own, so that the count of one thread
would see the padding of the other.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

_lock = threading.Lock()


def tokens_of(tokenizer: Any, prompts: Sequence[str], length: int, device: Any) -> Any:
    """Return `input_ids` and `attention_mask`, (N, length) on a device: padded, or cut at the end.

    Args:
        tokenizer: of transformers.
    """
    with _lock:
        tokens = tokenizer(
            list(prompts),
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        )
    return tokens.to(device)


def count(tokenizer: Any, prompt: str, *, marks: bool = True) -> int:
    """Return the tokens of a prompt, with the marks at its ends or without."""
    with _lock:
        return len(tokenizer.tokenize(prompt, add_special_tokens=marks))
