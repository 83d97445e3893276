"""The chunk that a living writer fills, and those that are full and wait to be sealed.

Invariants:

* Threads write side by side, each its whole line in one system call. A line is `on_the_way` from the moment it has
  its `seq` until it is known to be in the file, or to have `failed`; it is put among the failed first.
* Nothing is cut off, sealed or closed while a line is on the way.
* An open chunk becomes sealed by sync, close, rename, directory sync, in this order. `seal` may be called again after
  it failed or was interrupted, and goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from calyx_logging.core import files
from calyx_logging.events.event import end_of_line, with_seq
from calyx_logging.format.chunk import MAX_CHUNK_NUMBER, ChunkName
from calyx_logging.recording.gaps import Gap

__all__ = ["QUIET_SECONDS", "ChunkSeries", "Failed", "FillingChunk", "FullChunks"]

QUIET_SECONDS = 0.02
"""How long a step of a logging call waits for the lines of other threads; a call has two such steps at most."""
_POLL_SECONDS = 0.0005
_MAX_FULL = 8
"""Full chunks that may wait; on a disk slower than the program, who fills the next one has to seal."""


class Failed(NamedTuple):
    """A line whose write did not end well.

    Attributes:
        line: the event, without `seq`.
        seq: its number.
        fragment: the bytes of it that were taken, when the disk took some and not all.
        error: what the write raised.
        lost: has something in it once the line was counted as lost.
    """

    line: bytes
    seq: int
    fragment: bytes
    error: BaseException
    lost: list[BaseException]


class FillingChunk:
    """One open chunk.

    Args:
        outbox: the folder.
        name: its name; nobody else has it.
        first_seq: the `seq` of its first line.
        now: seconds since the epoch.
        born: seconds of a clock that never goes back.

    Raises:
        OSError: the file cannot be made.

    Attributes:
        on_the_way: `seq` of each line being written, and the thread that writes it.
        failed: lines to be seen to by whoever holds the writer next.
        adopted: `seq` of before that were written here after all.
        exempt: `seq` that are no events of this chunk: control lines', and what had to be written elsewhere.
        end_seq: the writer's next `seq` when the chunk was full.
        is_last: whether its number is a writer's last.
        told: the gaps that lines in it tell of.
        taken: whether a thread is sealing it apart from the writer.
    """

    __slots__ = (
        "_outbox",
        "adopted",
        "born",
        "end_seq",
        "exempt",
        "failed",
        "file",
        "first_seq",
        "is_last",
        "name",
        "on_the_way",
        "opened_at",
        "taken",
        "told",
    )

    def __init__(self, outbox: Path, name: ChunkName, first_seq: int, now: float, born: float) -> None:
        self.file = files.AppendFile(outbox / name.open)
        self.name = name
        self.first_seq = first_seq
        self.opened_at = now
        self.born = born
        self.on_the_way: dict[int, int] = {}
        self.failed: deque[Failed] = deque()
        self.adopted: set[int] = set()
        self.exempt: set[int] = set()
        self.end_seq = first_seq
        self.told: list[Gap] = []
        self.is_last = name.number == MAX_CHUNK_NUMBER
        self.taken = False
        self._outbox = outbox

    def is_quiet(self, seconds: float) -> bool:
        """Whether no line is on the way any more, after waiting so long at most."""
        if self.on_the_way:
            end = time.monotonic() + seconds
            while self.on_the_way and time.monotonic() < end:
                time.sleep(_POLL_SECONDS)
        return not self.on_the_way

    def fail(self, failed: Failed) -> None:
        """Note that a line was not, or perhaps not, written."""
        self.failed.append(failed)
        self.on_the_way.pop(failed.seq, None)

    def take_failed(self) -> list[Failed]:
        """Undo what failed writes left; the lines that are not in the file."""
        if not self.is_quiet(QUIET_SECONDS):
            self.file.torn = True  # others write behind the fragment: recovery takes the lines apart
        missing = []
        while self.failed:
            failed = self.failed.popleft()
            if not self._has_after_all(failed):
                missing.append(failed)
        return missing

    def _has_after_all(self, failed: Failed) -> bool:
        if not isinstance(failed.error, Exception):  # Ctrl-C can come after the bytes were written
            try:
                if self.file.contains(end_of_line(failed.seq)):
                    return True
                self.file.is_whole()
            except OSError:
                self.file.torn = True  # recovery sees what is in it
                return True
        self.exempt.add(failed.seq)
        self.file.size -= len(with_seq(failed.line, failed.seq))
        if failed.fragment and not self.file.torn:  # torn: others may be writing behind it
            self.file.cut_back(failed.fragment)
        return False

    def seal(self) -> None:
        """Make it immutable.

        Raises:
            FileNotFoundError: it is no longer where it was.
            OSError: it stays open, for recovery.
        """
        sealed = self._outbox / self.name.sealed
        try:
            if not self.file.closed:
                self.file.sync()
            self.file.close()
            try:
                files.rename_new(self.file.path, sealed)
            except FileExistsError:
                if self.file.path.exists():
                    raise
            files.sync_dir(self._outbox)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        """Give the file back as it is; not while a line is on the way, whose bytes another file could get."""
        if self.on_the_way:
            return
        with contextlib.suppress(OSError):  # what failed before is what is said
            self.file.close()


class ChunkSeries:
    """The chunks of one writer, one after the other: their numbers, and their times, which never go back.

    Args:
        outbox: the folder.
        component: part of the names.
        clock: seconds since the epoch.
        monotonic: seconds that never go back.
    """

    def __init__(
        self, outbox: Path, component: str, clock: Callable[[], float], monotonic: Callable[[], float]
    ) -> None:
        self._outbox = outbox
        self._component = component
        self._clock = clock
        self._monotonic = monotonic
        self._next_number = 0
        self._last_when: datetime | None = None

    @property
    def on_last(self) -> bool:
        """Whether the last number is taken."""
        return self._next_number > MAX_CHUNK_NUMBER

    def begin(self, writer: str, first_seq: int) -> FillingChunk:
        """The next chunk.

        Raises:
            OSError: its file cannot be made, or there are no numbers left.
        """
        if self.on_last:
            raise OSError(f"writer {writer} has used up its {MAX_CHUNK_NUMBER + 1} chunk numbers")
        now = self._clock()
        when = datetime.fromtimestamp(int(now), UTC)
        if self._last_when is not None:
            when = max(when, self._last_when)
        # the number is taken first: Ctrl-C right after the file was made must not leave its name in the way
        number, self._next_number = self._next_number, self._next_number + 1
        try:
            name = ChunkName(when, self._component, writer, number)
            chunk = FillingChunk(self._outbox, name, first_seq, now, self._monotonic())
        except OSError:
            self._next_number = number
            raise
        self._last_when = when
        return chunk

    def take_back(self, chunk: FillingChunk) -> None:
        """A chunk was never used and is deleted: its number is free again, if it was the last."""
        if self._next_number == chunk.name.number + 1:
            self._next_number = chunk.name.number


class FullChunks:
    """A writer's chunks that take no more lines, oldest first.

    Args:
        vanished: told of a chunk that is no longer where it was.
        emptied: told of a chunk that had nothing in it and was deleted.
        say: tells people.

    Attributes:
        left_open: whether a chunk was or may have been left for recovery.
    """

    def __init__(
        self,
        vanished: Callable[[FillingChunk], None],
        emptied: Callable[[FillingChunk], None],
        say: Callable[[str], None],
    ) -> None:
        self.left_open = False
        self._chunks: list[FillingChunk] = []
        self._vanished = vanished
        self._emptied = emptied
        self._say = say

    def add(self, chunk: FillingChunk) -> None:
        """One more, the newest."""
        self._chunks.append(chunk)

    def all(self) -> list[FillingChunk]:
        """All of them."""
        return list(self._chunks)

    def free(self) -> list[FillingChunk]:
        """Those that nobody is sealing apart."""
        return [chunk for chunk in self._chunks if not chunk.taken]

    @property
    def are_many(self) -> bool:
        """Whether too many wait."""
        return len(self._chunks) > _MAX_FULL

    def take(self) -> list[FillingChunk]:
        """All of them, to be sealed by the caller alone: `prepare`, then `FillingChunk.seal`, then `settle`."""
        for chunk in self._chunks:
            chunk.taken = True
        return list(self._chunks)

    def prepare(self, chunk: FillingChunk) -> bool:
        """Whether a chunk can and must be sealed now; one that is torn or empty is parted with."""
        if chunk not in self._chunks or chunk.on_the_way:
            chunk.taken = False
            return False
        try:
            empty = chunk.file.is_empty()
            if not (chunk.file.torn or empty):
                return True
            chunk.close()  # Windows deletes no open file
            if empty:
                files.remove(chunk.file.path)
        except OSError as error:
            self.settle(chunk, error)
            return False
        self._chunks.remove(chunk)
        if empty:
            self._emptied(chunk)
        else:
            self.left_open = True
        return False

    def settle(self, chunk: FillingChunk, error: OSError | None) -> None:
        """A chunk is sealed, or could not be: then it stays open."""
        if chunk not in self._chunks:
            return
        chunk.close()
        self._chunks.remove(chunk)
        if isinstance(error, FileNotFoundError):
            self._vanished(chunk)
        elif error is not None:
            self.left_open = True
            self._say(f"cannot seal {chunk.file.path}: {error}; the next export seals it")

    def seal(self, chunk: FillingChunk) -> None:
        """Seal one here and now, if it can be."""
        if self.prepare(chunk):
            try:
                chunk.seal()
            except OSError as error:
                self.settle(chunk, error)
            else:
                self.settle(chunk, None)

    def let_go(self) -> None:
        """Give back what is left."""
        for chunk in self._chunks:
            chunk.close()
            self.left_open = True
        self._chunks.clear()
