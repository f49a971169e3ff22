"""Tokenizers are used by one thread at a time.

Requests are checked in the threads that submit them while the engine's thread encodes prompts. A
fast tokenizer keeps padding and truncation as a state of its own, so that the count of one thread
would see the padding of the other.
"""

from __future__ import annotations

import threading

TOKENIZING = threading.Lock()
