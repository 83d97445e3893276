"""ChunkSeries: the chunks of one writer, from the first to the last: their names, and sealing them.

Invariants:

* Numbers have no holes, and times never go back. A number counts as used once its chunk is in `open`, so that an
  interrupt between creating a file and noting it leaves no hole: the next call finds the name, and uses it again.
* A full chunk (`ChunkFile.end` is set, and the writer writes elsewhere) stays in `open` until it is sealed, or left for
  recovery. Housekeeping alone seals, one thread at a time.
* What somebody took from a chunk is written again, or is left to another writer: nothing is lost without a gap.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.locks import WriterLock
from calyx_logging.errors import say
from calyx_logging.format.chunk import ChunkName
from calyx_logging.recording.chunk_file import ChunkFile, is_control, is_gap, without_seq
from calyx_logging.recording.gaps import Gap

__all__ = ["ChunkSeries", "sync_outbox"]


class ChunkSeries:
    """Makes and seals the chunks of one writer.

    Args:
        outbox: the folder.
        component: part of the names.
        lock: the writer's; its id is part of the names.
        clock: seconds since the epoch.
        monotonic: seconds that never go back, for ages.

    Attributes:
        open: chunks that are not sealed, in order; the last one may be in use.
        lines: events without `seq`, of a chunk that was taken away, for another writer.
        gaps: losses for another writer, with the id of the one whose they are.
        left_open: whether a chunk was left for recovery.
        is_abandoned: whether this is a forked child, and all of it is the parent's.
        taken_over: whether somebody else has sealed a chunk, or the folder is another: the writer has to leave.
    """

    def __init__(
        self,
        outbox: Path,
        component: str,
        lock: WriterLock,
        clock: Callable[[], float],
        monotonic: Callable[[], float],
    ) -> None:
        self.open: list[ChunkFile] = []
        self.lines: list[bytes] = []
        self.gaps: list[Gap] = []
        self.left_open = False
        self.taken_over = False
        self.is_abandoned = False
        self._outbox = outbox
        self._component = component
        self._lock = lock
        self._clock = clock
        self._monotonic = monotonic
        self._name: ChunkName | None = None
        self._used = -1

    def begin(self, current: ChunkFile | None) -> ChunkFile:
        """The chunk after `current`, which the writer uses; its lock is held.

        Raises:
            OSError: its file cannot be made.
        """
        last = self.open[-1] if self.open else None
        if last is not None and last.end is None and last is not current:
            return last  # made by a call that was interrupted before it used it
        number = max(self._used, -1 if last is None else last.name.number) + 1
        now = self._clock()
        name = self._name
        if name is None or name.number != number or name.writer != self._lock.writer:
            when = datetime.fromtimestamp(int(now), UTC)
            when = when if name is None else max(when, name.when)
            self._name = name = ChunkName(when, self._component, self._lock.writer, number)
        else:  # likewise, before it was known here: nobody else makes files of this writer's name
            if not self.is_abandoned:
                files.remove(self._outbox / name.open)
        chunk = ChunkFile(self._outbox, name, now, self._monotonic())
        self.open.append(chunk)
        return chunk

    def full(self, current: ChunkFile | None) -> list[ChunkFile]:
        """The chunks that wait to be sealed."""
        return [chunk for chunk in list(self.open) if chunk.end is not None and chunk is not current]

    def seal(self, chunk: ChunkFile) -> None:
        """Seal a full chunk, write again what somebody took from it, or delete one that was never used."""
        try:
            if chunk.end is None:
                chunk.close()  # Windows deletes no open file
                files.remove(chunk.path)
            elif self.taken_over:
                self._move(chunk, chunk.whole_lines(), set())
            elif not chunk.seal():
                self._write_again(chunk)
        except OSError as error:
            say(f"cannot seal {chunk.path}: {error}; the next export seals it")
            self.left_open = True
        with contextlib.suppress(OSError):
            chunk.close()
        if chunk.end is not None:
            self._used = max(self._used, chunk.name.number)
        with contextlib.suppress(ValueError):
            self.open.remove(chunk)

    def _write_again(self, chunk: ChunkFile) -> None:
        """Somebody replaced, deleted, truncated or sealed the chunk: keep what the descriptor still gives."""
        lines = [] if chunk.closed else chunk.whole_lines()
        lost = chunk.lost_of(lines)
        cause = f"{chunk.name.open} was changed, moved or deleted under its writer"
        result = f"{len(lost)} of its events are lost" if lost else "its events are written again"
        say(f"{cause}; {result}")
        if lost:
            self.leave_gaps([Gap(cause, chunk.opened_at, self._clock(), tuple((seq, seq) for seq in lost))])
        if self._outbox.is_dir() and not chunk.sealed_path.exists():
            temporary = self._outbox / f".{chunk.name.sealed}.tmp"
            files.remove(temporary)
            files.write_new(temporary, lines)
            files.remove(chunk.path)
            files.rename_new(temporary, chunk.sealed_path)
            self.leave_gaps(chunk.told[sum(map(is_gap, lines)) :])
        else:  # the folder is another, or an exporter took this writer for dead: another writer goes on
            self.taken_over = True
            self._move(chunk, lines, chunk.lines_of_sealed())

    def _move(self, chunk: ChunkFile, lines: list[bytes], kept: set[bytes]) -> None:
        """Have another writer write a chunk's events, but for the lines that are kept, and tell of its gaps."""
        self.lines += [without_seq(line) for line in lines if line not in kept and not is_control(line)]
        self.leave_gaps(chunk.told[sum(map(is_gap, kept)) :])
        chunk.close()
        if chunk.is_at(chunk.path):
            files.remove(chunk.path)

    def leave_gaps(self, gaps: Iterable[Gap]) -> None:
        """Have another writer tell of them."""
        self.gaps += [replace(gap, writer=gap.writer or self._lock.writer) for gap in gaps]

    def forget_unused(self) -> None:
        """Delete a file that an interrupted call made, and that was never used."""
        if self._name is not None and self._name.number > self._used:
            with contextlib.suppress(OSError):
                files.remove(self._outbox / self._name.open)

    def take_gaps(self) -> list[Gap]:
        """Return the losses that the writer cannot tell of itself."""
        gaps, self.gaps = self.gaps, []
        return gaps

    def take_lines(self) -> list[bytes]:
        """Return the events that the writer cannot write itself."""
        lines, self.lines = self.lines, []
        return lines


def sync_outbox(outbox: Path) -> bool:
    """Make the names of sealed chunks last; False if that fails, which is said."""
    try:
        files.sync_dir(outbox)
    except OSError as error:
        if outbox.exists():
            say(f"cannot sync {outbox}: {error}; on loss of power its last chunks may be open again")
        return False
    return True
