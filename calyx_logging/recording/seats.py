"""Seats: the right to use a writer, for one call at a time, and which writers no call has.

Invariants:

* A writer is used by whoever holds its seat. A call pops a seat from `idle` and appends it again; housekeeping removes
  it. These deque operations are atomic: under the GIL, as one call into C each; in free-threaded builds, by the deque's
  own lock. So nobody else holds a seat that was popped.
* A call that was interrupted drops its seat. `ChunkWriter.seat` is a weak reference: where it is dead, no call has the
  writer. Housekeeping alone makes it a new seat, and its callers keep out of each other's way.
"""

from __future__ import annotations

import time
import weakref
from collections import deque

from calyx_logging.recording.writer import ChunkWriter

__all__ = ["POLL_SECONDS", "Seat", "Seats"]

POLL_SECONDS = 0.0005


class Seat:
    """The right to use a writer."""

    __slots__ = ("__weakref__", "writer")

    def __init__(self, writer: ChunkWriter) -> None:
        self.writer = writer


class Seats:
    """The writers of one process and pool, until the pool is closed, and their seats.

    Attributes:
        idle: seats that nobody holds; the last one put back is the first one taken.
        writers: all of them.
    """

    __slots__ = ("_first", "_seen", "idle", "writers")

    def __init__(self) -> None:
        self.idle: deque[Seat] = deque()
        self.writers: list[ChunkWriter] = []
        self._first: dict[str, ChunkWriter] = {}
        self._seen: weakref.WeakKeyDictionary[ChunkWriter, tuple[int, float]] = weakref.WeakKeyDictionary()

    def add(self, writer: ChunkWriter) -> Seat:
        """The seat of a new writer, held by the caller."""
        seat = Seat(writer)
        writer.seat = weakref.ref(seat)
        writer.first = self._first.setdefault("writer", writer)  # atomic, where two threads begin at once
        self.writers.append(writer)
        return seat

    def unused_seconds(self, writer: ChunkWriter) -> float:
        """Return for how long a writer has written nothing, as far as the looks so far tell."""
        now, seq = time.monotonic(), writer.state[1]
        if self._seen.setdefault(writer, (seq, now))[0] != seq:
            self._seen[writer] = (seq, now)
        return now - self._seen[writer][1]

    @property
    def has_begun(self) -> bool:
        """Whether there has been a writer."""
        return bool(self._first)

    def take(self, writer: ChunkWriter, deadline: float = 0.0) -> Seat | None:
        """The writer's seat, once no call has it; None when that does not come about before the deadline.

        Args:
            writer: one of these.
            deadline: a moment of `time.monotonic`.
        """
        while True:
            seat: Seat | None = writer.seat()
            if seat is None:  # dropped by an interrupted call
                seat = Seat(writer)
                writer.seat = weakref.ref(seat)
                return seat
            try:
                self.idle.remove(seat)
            except (ValueError, IndexError):  # IndexError: it changed meanwhile, in a free-threaded build
                if time.monotonic() >= deadline:
                    return None
                del seat
                time.sleep(POLL_SECONDS)
            else:
                return seat
