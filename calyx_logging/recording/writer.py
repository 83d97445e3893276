"""ChunkWriter: one writer's lock, its chunks and its `seq`.

Invariants:

* One call at a time uses it: whoever took it from its pool. `look`, `sync_if_due` and `seal_full` need nobody's leave;
  the pool's housekeeping alone calls them, one at a time.
* `state` (chunk, next `seq`, the chunk's length, gaps) is one value, replaced in one store after what it says is in
  the file. After an interrupt `mend` makes them agree: it cuts off a partial line, and takes a whole one for written.
* Every event that is offered takes a `seq`. One that cannot be written is in a gap until a gap line names it.
* The lock is taken before the first chunk exists and given back after the last one is sealed.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.locks import WriterLock
from calyx_logging.errors import say
from calyx_logging.events.event import end_of_line, with_seq
from calyx_logging.format.chunk import MAX_CHUNK_NUMBER
from calyx_logging.format.loss_note import note_of
from calyx_logging.recording.chunk_file import ChunkFile, is_control, seq_of
from calyx_logging.recording.chunk_series import ChunkSeries
from calyx_logging.recording.control_lines import ControlLines
from calyx_logging.recording.gaps import Gap, LossReporter, cause_of, count_of, with_loss
from calyx_logging.recording.options import WriterOptions

__all__ = ["ChunkWriter", "State"]

_ANOTHER_FILE_MAY_DO = (errno.EFBIG, errno.EIO, errno.EBADF, getattr(errno, "ESTALE", errno.EIO))
_MAX_FULL = 8
"""Full chunks that may wait to be sealed; on a slower disk the open one grows over its limit instead."""

State = tuple[ChunkFile | None, int, int, tuple[Gap, ...]]
"""The open chunk, the next `seq`, the chunk's length in bytes, and the gaps that no line tells of yet."""


class ChunkWriter:
    """Writes lines into chunks of one outbox, alone.

    Args:
        outbox: the node's outbox folder.
        node_id: for control lines.
        component: part of the chunks' names.
        options: when to roll and sync.
        reporter: says that events are lost; shared by a pool's writers.
        others_lose: whether other writers of the pool have gaps to tell of.
        reserve: whether its lock file keeps some room for its end on a full disk.
        clock, monotonic: seconds since the epoch, and seconds that never go back, for ages.

    Attributes:
        state: see `State`.
        limit: bytes up to which a line may be written without `append`; -1 for none.
        leaving: it is to be ended, and takes no more lines.
        seat: the seat that was made for it last, if it is still there (`calyx_logging.recording.pool`).
        first: the first writer of this process, which the start line of another one names.
        lock: shows that it lives, and has its id, which is settled once it has a chunk.
    """

    __slots__ = ("__dict__", "__weakref__", "limit", "state")  # see core_members

    def __init__(
        self,
        outbox: Path,
        node_id: str,
        component: str,
        options: WriterOptions,
        *,
        reporter: LossReporter | None = None,
        others_lose: Callable[[], bool] = lambda: False,
        reserve: bool = True,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.state: State = (None, 0, 0, ())
        self.limit = -1
        self.leaving = False
        self.seat: Callable[[], Any] = lambda: None
        self.first = self
        self._outbox = outbox
        self._options = options
        self._reporter = reporter or LossReporter(outbox)
        self._others_lose = others_lose
        self._clock = clock
        self._lines = ControlLines(node_id, clock)
        self._monotonic = monotonic
        self.lock = WriterLock(outbox, reserve=reserve, component=component)
        self._series = ChunkSeries(outbox, component, self.lock, clock, monotonic)
        self._rolls = self._ended = self._sync_fails = False

    def append(self, line: bytes, *, or_leave: bool = False, roll: bool = True) -> bool:
        """Write one event the long way: make room, begin a chunk, tell of gaps, go round errors.

        Args:
            line: without `seq`.
            or_leave: where the folder is gone, set `leaving` and count nothing: another writer will take the line.
            roll: whether a full chunk may be followed by another now; else it grows over its limit.

        Returns:
            Whether it is kept; else it is counted in a gap, unless the writer is `leaving`.
        """
        if self.leaving and or_leave:
            return False
        try:
            try:
                self.mend()
                self._put(line, roll=roll)
            except OSError as error:
                if error.errno not in _ANOTHER_FILE_MAY_DO or not self.retire():
                    raise
                self._put(line)
        except OSError as error:
            if or_leave and (isinstance(error, FileNotFoundError) or self._series.is_abandoned):
                self.leaving = True
            else:
                self.lose(error)
            return False
        return True

    def lose(self, error: BaseException, lines: Iterable[bytes] = (b"",)) -> None:
        """Count events that cannot be written, one for each of some lines; where anything raises, it is not counted."""
        for _ in lines:
            chunk, seq, size, gaps = self.state
            self.limit = -1
            self._reporter.lost(error)
            self.state = (chunk, seq + 1, size, with_loss(gaps, seq, cause_of(error), self._clock()))
        self._note_losses()

    def tell(self) -> None:
        """Write the gap lines that are due, if writing works; else the next event or the end tries again."""
        with contextlib.suppress(OSError):
            if self.loses:
                self.mend()
                self._put(b"")
        self._note_losses()

    @property
    def loses(self) -> int:
        """The number of events in gaps that it has to tell of."""
        return count_of(self.state[3])

    def inherit(self, gaps: Iterable[Gap]) -> None:
        """Take over what another writer could not tell of."""
        chunk, seq, size, own = self.state
        self.limit, self.state = -1, (chunk, seq, size, (*gaps, *own))
        self._note_losses()

    def mend(self) -> None:
        """Make state and file agree after a call that failed or was interrupted."""
        chunk, seq, size, gaps = self.state
        if chunk is None or chunk.length() == size:
            return
        tail = chunk.read(size)
        lines = tail[: tail.rfind(b"\n") + 1].splitlines(keepends=True)
        last = seq_of(lines[-1]) if lines else None
        if lines and (last is None or last < seq):  # no lines of this writer: somebody else wrote into the file
            self.retire()
            return
        whole = size + sum(map(len, lines))
        if whole < size + len(tail):
            chunk.cut(whole)
        if last is not None:
            if gaps and is_control(lines[0]):
                chunk.told += gaps
                gaps = ()
            self.state = (chunk, last + 1, whole, gaps)
            self._note_losses()
        elif not tail:  # shorter than it was: what is left is written again when it is sealed
            self.retire()

    def retire(self) -> bool:
        """Call the open chunk full, if there is one with something in it; the next event begins another."""
        chunk, seq, size, gaps = self.state
        if chunk is None or not size:
            return False
        chunk.end = (seq, size)
        self.limit, self._rolls = -1, False
        self.state = (None, seq, 0, gaps)
        return True

    def sync(self) -> None:
        """Return once the open chunk's bytes are on the medium; where that fails it is said once."""
        chunk, _, size, _ = self.state
        try:
            if chunk is not None:
                chunk.sync()
                chunk.synced = size
                self._sync_fails = False
        except OSError as error:
            if not self._sync_fails:
                say(f"cannot sync an open chunk: {error}; on loss of power its last events may be missing")
            self._sync_fails = True

    def end(self) -> None:
        """End in order: a last gap line, the end line, every chunk sealed; `leave` comes after the directory's sync."""
        self.leaving = True
        with contextlib.suppress(OSError):
            self.mend()
        self.seal_full()
        if (self.state[1] or self.loses) and not self._ended and not self._series.taken_over:
            self._write_end()
        self.retire()
        for chunk in list(self._series.open):
            self._series.seal(chunk)
        self._series.forget_unused()

    def leave(self, *, synced: bool) -> None:
        """Give the lock back after `end`; the file stays where recovery has something to do.

        Args:
            synced: whether the directory was synced, so that the sealed names last; else the lock file stays.
        """
        if self.lock.has_note:
            say(f"{self.loses} events were lost, and the next export says so")
        try:
            self.lock.give_back(delete=synced and not self._series.left_open and not self.lock.has_note)
        except OSError as error:
            say(f"cannot delete the lock file of writer {self.lock.writer}: {error}; the next export does")

    def prepare(self, *, begin: bool = True) -> None:
        """Take the lock, and begin a chunk, ahead of the first event."""
        with contextlib.suppress(OSError):  # the first event tries again, and says so
            self.lock.take()
            if begin:
                self._chunk_for(0)

    def look(self) -> bool:
        """Whether it needs somebody who takes it: a chunk that is old or was tampered with, gaps, a lost lock file."""
        chunk, _, size, _ = self.state
        self.leaving = self.leaving or (bool(self._series.open) and self.lock.is_lost)
        if self.leaving or self.loses:
            return True
        return chunk is not None and size > 0 and (self._is_old(chunk) or chunk.is_away(size))

    def care(self, *, roll: bool = False, ready: bool = False) -> None:
        """Mend it, tell of its gaps, and call its chunk full where that is old or was tampered with, having taken it.

        Args:
            roll: call it full in any case.
            ready: begin the next chunk at once.
        """
        try:
            self.mend()
            chunk, _, size, _ = self.state
            if roll or (chunk is not None and (self._is_old(chunk) or chunk.is_away(size))):
                self.retire()
        except OSError:  # what cannot be mended is written again when it is sealed
            self.retire()
        self.tell()
        if ready:
            self.prepare()

    def roll_soon(self) -> None:
        """Have the call that has it begin another chunk for the next event."""
        self._rolls = True
        self.limit = -1

    def sync_if_due(self) -> None:
        """Sync what was written since the last time."""
        chunk, _, size, _ = self.state
        if chunk is not None and size != chunk.synced:
            self.sync()

    @property
    def has_full(self) -> bool:
        """Whether full chunks wait to be sealed."""
        return bool(self._series.full(self.state[0]))

    def seal_full(self) -> None:
        """Seal the chunks that are full; the caller syncs the directory."""
        for chunk in self._series.full(self.state[0]):
            self._series.seal(chunk)
        if self._series.taken_over:
            self.leaving = True
            self.limit = -1

    def take_lines(self) -> list[bytes]:
        """Return the events that it cannot write itself, without `seq`."""
        return self._series.take_lines()

    def take_gaps(self, *, of_calls: bool) -> list[Gap]:
        """Return losses that sealing found, for another writer; of a writer that was taken, also those of its calls."""
        if of_calls:
            chunk, seq, size, gaps = self.state
            self._series.leave_gaps(gaps)
            self.state = (chunk, seq, size, ())
            self._note_losses()
        return self._series.take_gaps()

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, touching nothing on disk."""
        self.leaving, self.limit = True, -1
        self._series.is_abandoned = True
        self.lock.forget()
        for chunk in self._series.open:
            with contextlib.suppress(OSError):
                chunk.close()

    def _put(self, line: bytes, *, roll: bool = True) -> None:
        """Write gap lines that are due and the event in one append: small lines alone would fill a full disk up."""
        chunk = self._chunk_for(len(line), roll=roll)
        _, seq, size, gaps = self.state
        data, seq = self._first_lines(chunk, size, gaps, seq)
        if line:
            data += with_seq(line, seq)
            seq += 1
        self._check_process()
        chunk.append(data)
        self.state = (chunk, seq, size + len(data), ())
        self._note_told(chunk, gaps)
        self.limit = -1 if chunk.name.number == MAX_CHUNK_NUMBER or self.leaving else self._options.max_bytes

    def _check_process(self) -> None:
        """Raise FileNotFoundError in a child forked amid this call, so that a writer of its own takes the line."""
        if self._series.is_abandoned:
            self.abandon()  # also what the call has opened since
            raise FileNotFoundError(errno.ENOENT, "the writer is another process's", str(self._outbox))

    def _note_told(self, chunk: ChunkFile, gaps: tuple[Gap, ...]) -> None:
        if gaps:
            chunk.told += gaps
            self._note_losses()
            self._reporter.told(gaps, last=not self._others_lose())

    def _note_losses(self) -> None:
        """Leave word in the lock file of what it has to tell of, in case it dies before it can."""
        self.lock.note(note_of(self.lock.component, [gap.fields() for gap in self.state[3]]))

    def _first_lines(self, chunk: ChunkFile, size: int, gaps: tuple[Gap, ...], seq: int) -> tuple[bytes, int]:
        """The lines that have to come before the next one, and the `seq` that follows: a start line, gap lines."""
        is_further = self.first is not self
        if size or chunk.name.number or not (is_further or self._options.identity):
            return self._lines.gaps(gaps, seq)
        told, after = self._lines.gaps(gaps, seq + 1)
        return self._lines.start(seq, self.first.lock.writer, is_further=is_further) + told, after

    def _chunk_for(self, length: int, *, roll: bool = True) -> ChunkFile:
        """The open chunk, or the next one where a line of `length` bytes has no room in it."""
        chunk, seq, size, gaps = self.state
        if chunk is not None:
            room = size + length - 1 + len(end_of_line(seq)) <= self._options.max_bytes
            if not size or not roll or (room and not self._rolls and not self._is_old(chunk)):
                return chunk
            if chunk.name.number == MAX_CHUNK_NUMBER:
                if not length:
                    return chunk  # for the end line
                self._write_end()
                self.retire()
                raise FileNotFoundError(errno.ENOENT, "the writer has used up its chunk numbers", str(self._outbox))
            if len(self._series.open) > _MAX_FULL:
                return chunk
        try:
            self.lock.take()
            self._check_process()
            new = self._series.begin(chunk)
            self._check_process()
            if self._options.sync != "seal":
                files.sync_dir(self._outbox)  # or a synced event would be in a file without a name
        except FileNotFoundError:
            raise
        except OSError:
            if chunk is None:
                raise
            return chunk  # no room for another file, no descriptors: the full one still takes lines
        if chunk is not None:
            chunk.end = (seq, size)
        new.first_seq = seq
        self._rolls = False
        self.state = (new, seq, 0, gaps)
        return new

    def _write_end(self) -> None:
        try:
            self._write_last_lines()
        except Exception as error:
            try:
                if not self.lock.free_room():
                    raise
                self._write_last_lines()
            except Exception:
                say(f"cannot write the end of writer {self.lock.writer}: {error}")

    def _write_last_lines(self) -> None:
        chunk = self._chunk_for(0)
        _, seq, size, gaps = self.state
        data, seq = self._first_lines(chunk, size, gaps, seq)
        chunk.append(data + self._lines.end(seq))
        self._ended = True
        self.state = (chunk, seq + 1, chunk.length(), ())
        self._note_told(chunk, gaps)

    def _is_old(self, chunk: ChunkFile) -> bool:
        max_age = self._options.max_age
        return max_age is not None and self._monotonic() - chunk.born >= max_age
