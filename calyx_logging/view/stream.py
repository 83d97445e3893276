"""Hand on the events that are written to an outbox, by all processes, as they arrive.

A thread follows the chunks and keeps the newest events in a window of bounded size; each visitor has a place of its own
in it. Invariants: events are numbered from 1 without holes; who is too slow for the window is told which numbers it
missed; memory does not grow with the number of events or of visitors.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx_logging.errors import CalyxError
from calyx_logging.format.reader import ChunkRef, Filter, Follower, Line, last_events
from calyx_logging.report.events import shortened

__all__ = ["Batch", "Stream"]

BACKLOG = 500
"""Number of events, written before it began, with which a stream begins."""

_MAX_EVENTS = 50_000
_MAX_CHARACTERS = 32_000_000
"""Size of the window."""

_BATCH = 1000
_BATCH_CHARACTERS = 500_000
"""Maximum size of what is handed on at once; a single event may be larger."""

_POLL_SECONDS = 0.2
_REST = 4
"""Rest after looking for new events, as a multiple of the time that it took."""


@dataclass(frozen=True)
class Batch:
    """Events to be handed on.

    Attributes:
        first: number of the first of them.
        lines: their text.
        missed: how many before these are no longer in the window.
    """

    first: int
    lines: list[str]
    missed: int = 0

    @property
    def after(self) -> int:
        """Return the number of the event after the last one."""
        return self.first + len(self.lines)


class Stream:
    """Follows an outbox.

    Args:
        chunks: lists its chunks.
        wake: is called, in a thread of the stream's own, when there are new events.
        warn: is told, once, of what cannot be read.

    Raises:
        StorageError: the outbox cannot be read.
    """

    def __init__(
        self, chunks: Callable[[], Iterable[ChunkRef]], wake: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self._chunks, self._wake, self._warn = chunks, wake, warn
        self._lock = threading.Lock()
        self._window: deque[str] = deque()
        self._characters = 0
        self._next = 1
        self._warned: set[str] = set()
        self._ending = threading.Event()
        self.changed_at = 0.0
        """Monotonic time at which the last event arrived."""
        self._thread = threading.Thread(target=self._follow, name="calyx-logging-view", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._ending.set()

    @property
    def next(self) -> int:
        """Return the number that the next event will have."""
        with self._lock:
            return self._next

    def after(self, place: int) -> Batch:
        """Return the events from number `place` on, as many as are handed on at once; none if there are none yet."""
        with self._lock:
            oldest = self._next - len(self._window)
            first = min(max(place, oldest), self._next)
            lines: list[str] = []
            size = 0
            for number in range(first - oldest, min(len(self._window), first - oldest + _BATCH)):
                size += len(self._window[number])
                if lines and size > _BATCH_CHARACTERS:
                    break
                lines.append(self._window[number])
            return Batch(first, lines, max(0, first - place))

    def recent(self, session: str) -> dict[str, Any]:
        """Return the newest events, as many as are handed on at once, with the id after which a stream goes on."""
        with self._lock:
            oldest = self._next - len(self._window)
            first = max(oldest, self._next - _BATCH)
            lines = [self._window[number] for number in range(first - oldest, len(self._window))]
            return {"first": first, "lines": lines, "id": f"{session}-{self._next - 1}"}

    # -------------------------------------------------------------- in the thread

    def _follow(self) -> None:
        wanted = Filter()
        follower = None
        seen: set[bytes] = set()
        while not self._ending.is_set():
            began = time.monotonic()
            try:
                if follower is None:  # first, so that nothing is missed between the two
                    follower = Follower(self._paths, self._warn_once)
                    backlog = last_events(self._paths(), BACKLOG, wanted, self._warn_once)
                    seen = {line.data for line in backlog}
                    self._take(backlog)
                self._take(line for line in follower.new() if wanted(line.event) and line.data not in seen)
                seen = set()
            except (CalyxError, OSError) as error:
                self._warn_once(str(error))
            self._ending.wait(max(_POLL_SECONDS, _REST * (time.monotonic() - began)))

    def _paths(self) -> list[Path]:
        return [ref.path for ref in self._chunks()]

    def _take(self, lines: Iterable[Line]) -> None:
        some: list[str] = []
        try:
            for line in lines:
                some.append(shortened(line.data)[0])
                if len(some) >= _BATCH:
                    self._add(some)
                    some = []
        finally:  # those that were read before something could not be read
            self._add(some)

    def _add(self, lines: list[str]) -> None:
        if not lines:
            return
        with self._lock:
            self._window.extend(lines)
            self._next += len(lines)
            self._characters += sum(map(len, lines))
            while len(self._window) > _MAX_EVENTS or (self._characters > _MAX_CHARACTERS and len(self._window) > 1):
                self._characters -= len(self._window.popleft())
            self.changed_at = time.monotonic()
        self._wake()

    def _warn_once(self, text: str) -> None:
        if text not in self._warned and len(self._warned) < 100:
            self._warned.add(text)
            self._warn(text)
