"""Calls: how many logging calls a thread is inside of, one within the other."""

from __future__ import annotations

import threading

__all__ = ["MAX_DEPTH", "Calls", "Local"]

MAX_ENCODING = 8
"""Calls within the encoding of others that are followed: a processor that logs for every event would never end."""

MAX_DEPTH = 32
"""Calls within calls that are followed in all: signals may come faster than they are logged."""


class Calls:
    """A thread's calls under way.

    Attributes:
        depth: how many.
        encoding: how many of them have not encoded their event yet.
    """

    __slots__ = ("depth", "encoding")

    def __init__(self) -> None:
        self.depth = self.encoding = 0

    def check(self) -> None:
        """Raise `RecursionError` where the calls go too deep."""
        if self.encoding > MAX_ENCODING or self.depth > MAX_DEPTH:
            limit = MAX_ENCODING if self.encoding > MAX_ENCODING else MAX_DEPTH
            raise RecursionError(f"logged from inside logging, {limit} calls deep")


class Local(threading.local):
    """Gives each thread its own `Calls`."""

    def __init__(self) -> None:
        self.calls = Calls()
