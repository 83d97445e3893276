"""Ids of events: UUIDs of version 7 (RFC 9562), which increase within a process.

By uuid-utils where it is installed, else by the standard library from Python 3.14 on, else by the same method here.
"""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable

__all__ = ["uuid7"]

_COUNTER_BITS = 42


class _Source:
    """Makes ids of milliseconds, a counter that begins at random in each of them, and 32 random bits."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin anew, as a forked child does: another thread of its parent may have held the lock."""
        self._lock = threading.Lock()
        self._milliseconds = 0
        self._counter = 0

    def __call__(self) -> uuid.UUID:
        now = time.time_ns() // 1_000_000
        with self._lock:
            if now > self._milliseconds:
                self._milliseconds = now
                self._counter = int.from_bytes(os.urandom(6)) >> (48 - _COUNTER_BITS + 1)  # half of them are free
            else:  # in the same one, or the clock was set back
                self._counter += 1
                if self._counter >> _COUNTER_BITS:
                    self._milliseconds += 1
                    self._counter = 0
            milliseconds, counter = self._milliseconds, self._counter
        value = (milliseconds & (1 << 48) - 1) << 80 | 7 << 76 | (counter >> 30) << 64
        value |= 0b10 << 62 | (counter & (1 << 30) - 1) << 32 | int.from_bytes(os.urandom(4))
        return uuid.UUID(int=value)


def _from_here() -> Callable[[], object]:
    source = _Source()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=source.begin)
    return source


uuid7: Callable[[], object]
try:
    from uuid_utils import uuid7 as uuid7
except ImportError:
    uuid7 = getattr(uuid, "uuid7", None) or _from_here()
