"""Tell open pages what is new besides events: the number of the newest page, the current step, and errors."""

from __future__ import annotations

import asyncio
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["Board"]

_INTEREST_SECONDS = 5.0


class Board:
    """State that threads change and that open streams wait for.

    Attributes:
        session: id of this server, to tell it from one that was there before.
        page: number of the newest page; 0 before there is one.
        step: what is being done.
        trouble: what went wrong; empty if nothing did.
        ending: is set when the server ends.
    """

    def __init__(self) -> None:
        self.session = secrets.token_hex(8)
        self.page = 0
        self.step = ""
        self.trouble = ""
        self.ending = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting: set[asyncio.Event] = set()
        self._asked_at = -_INTEREST_SECONDS

    @property
    def is_watched(self) -> bool:
        """Whether anybody watches, or has just asked for the page."""
        return bool(self._waiting) or time.monotonic() < self._asked_at + _INTEREST_SECONDS

    def asked(self) -> None:
        """Note that somebody has asked for the page."""
        self._asked_at = time.monotonic()

    @contextmanager
    def watching(self) -> Iterator[asyncio.Event]:
        """Yield an event that is set whenever there is something new; in the server's loop."""
        self._loop = asyncio.get_running_loop()
        wake = asyncio.Event()
        self._waiting.add(wake)
        try:
            yield wake
        finally:
            self._waiting.discard(wake)

    def wake(self) -> None:
        """Tell those who watch that there is something new; from any thread."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake_all)

    def _wake_all(self) -> None:
        for wake in self._waiting:
            wake.set()
