"""Where threads meet a writer: its lock, and what a thread is in the middle of."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from calyx_logging.errors import say
from calyx_logging.recording.writer import ChunkWriter

__all__ = ["Action", "Desk", "Local", "ShortWriteError", "State"]


class ShortWriteError(OSError):
    """The disk took some bytes of a line, and not all."""


class Desk:
    """A writer and the lock of those who use it.

    Attributes:
        lock: held for every use of the writer, but not for the write of a line that has its place.
        writer: the one in use.
        leaving: writers that are used up, and to be closed.
        unsaid: what people are to be told once no lock is held: standard error may lead back into logging.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.writer: ChunkWriter | None = None
        self.leaving: list[ChunkWriter] = []
        self.unsaid: deque[str] = deque()

    def tell_people(self) -> None:
        """Say what came up."""
        with suppress(IndexError):  # another thread has said the last
            while self.unsaid:
                say(self.unsaid.popleft())


Action = Callable[[Desk, Any], Any]


class State:
    """What a thread is doing in a recorder: how many calls deep, how many desks it is at, what it put off."""

    __slots__ = ("depth", "inside", "put_off")

    def __init__(self) -> None:
        self.depth = 0
        self.inside = 0
        self.put_off: deque[tuple[Action, Any]] = deque()


class Local(threading.local):
    """Each thread's own state."""

    def __init__(self) -> None:
        self.state = State()
