"""ChunkWriter: one writer's lock, its chunks and its `seq`.

Invariants:

* The writer's lock is taken before its first chunk exists and given back after its last one is sealed.
* Every event that is offered takes a `seq`; one that could not be written is counted and named in a gap line as soon
  as writing works again.
* There are two ways for a line. The common one: `place` gives it a `seq` and its place in the open chunk, and the
  caller writes it, beside other threads (`calyx_logging.recording.active_chunk`). The other one, `append`, begins
  chunks, tells of gaps, and goes round errors; it writes alone.
* A full chunk waits to be sealed by whoever keeps house for the writer; where it cannot be, it stays for recovery.
* Nothing here raises `OSError` to its caller. Not thread-safe: `calyx_logging.recording.recorder` serialises the calls.
"""

from __future__ import annotations

import contextlib
import errno
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.locks import WriterLock
from calyx_logging.errors import say
from calyx_logging.events.event import control_event, end_of_line, with_seq
from calyx_logging.recording.active_chunk import QUIET_SECONDS, ChunkSeries, Failed, FillingChunk, FullChunks
from calyx_logging.recording.gaps import Gap, Losses
from calyx_logging.recording.options import WriterOptions

__all__ = ["ChunkWriter"]

_ANOTHER_FILE_MAY_DO = (errno.EFBIG, errno.EIO, errno.EBADF, getattr(errno, "ESTALE", errno.EIO))
_LONG_QUIET_SECONDS = 2.0


class ChunkWriter:
    """Writes lines into chunks of one outbox, alone.

    Args:
        outbox: the node's outbox folder.
        node_id: for control lines.
        component: part of the chunks' names.
        options: when to roll and sync.
        gaps: what an earlier writer could not tell of.
        say: tells people.
        leave_full: asks whether somebody will soon seal a chunk that is full (`full`); else it is sealed at once.
        clock: seconds since the epoch.
        monotonic: seconds that never go back, for ages.

    Attributes:
        uprooted: its folder was taken away, or its chunk; it writes no more.
        full: chunks that take no more lines and wait to be sealed.
    """

    def __init__(
        self,
        outbox: Path,
        node_id: str,
        component: str,
        options: WriterOptions,
        *,
        gaps: Iterable[Gap] = (),
        say: Callable[[str], None] = say,
        leave_full: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.uprooted = False
        self.full = FullChunks(self._count_vanished, self._emptied, say)
        self._outbox = outbox
        self._node_id = node_id
        self._options = options
        self._max_bytes = options.max_bytes
        self._clock = clock
        self._monotonic = monotonic
        self._leave_full = leave_full
        self._lock = WriterLock(outbox)
        self._chunk: FillingChunk | None = None
        self._series = ChunkSeries(outbox, component, clock, monotonic)
        self._seq = 0
        self._say = say
        self._losses = Losses(outbox, gaps, say=say)
        self._sync_fails = False
        self._ended = False

    # -------------------------------------------------------------- for the recorder

    @property
    def on_last_number(self) -> bool:
        """Whether its last chunk number is taken."""
        return self._series.on_last

    @property
    def exhausted(self) -> bool:
        """Whether its last chunk is full, so that a new writer has to begin."""
        return self.on_last_number and self._chunk is None

    def place(self, line: bytes, who: int) -> tuple[FillingChunk, int, bytes] | None:
        """A line's chunk, its `seq` and its last bytes; None when it has to be given to `append`.

        The caller writes `line[:-1]` and those bytes in one `file.write`; then `on_the_way.pop`, or `fail` and `mend`.
        """
        chunk = self._chunk
        if chunk is None or self._losses.gaps or chunk.failed or chunk.is_last:
            return None
        seq, file = self._seq, chunk.file
        end = b',"seq":%d}\n' % seq  # end_of_line, where every call counts
        size = file.size + len(line) - 1 + len(end)
        if (size > self._max_bytes and file.size) or file.torn:
            return None
        file.size = size
        chunk.on_the_way[seq] = who
        self._seq = seq + 1
        return chunk, seq, end

    def append(self, line: bytes, seq: int | None = None) -> bool:
        """Write one event, alone; False when it could not be kept: then it is counted, unless `uprooted`.

        Args:
            line: without `seq`.
            seq: the one it has already taken.
        """
        try:
            self._put(line, seq)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                self.uprooted = True
                return False
            if error.errno not in _ANOTHER_FILE_MAY_DO or not self._put_elsewhere(line, seq):
                if not self.uprooted:
                    self.lose(error, seq)
                return False
        if self._options.sync == "record" and self._chunk is not None:
            self.sync(self._chunk)
        return True

    def mend(self) -> list[Failed]:
        """See to the lines that failed; those that are still to be given to `append`, with their `seq`."""
        again = []
        for chunk in self._chunks():
            for failed in chunk.take_failed() if chunk.failed else ():
                if isinstance(failed.error, Exception):
                    again.append(failed)
                elif failed.seq == self._seq - 1:
                    self._seq = failed.seq  # Ctrl-C ended the call: nobody was promised anything
                else:
                    self.lose(failed.error, failed.seq)
        return again

    def placed_by(self, thread: int) -> tuple[FillingChunk, int] | None:
        """The chunk and `seq` of the line that a thread has on the way."""
        on_the_way = ((chunk, seq, who) for chunk in self._chunks() for seq, who in list(chunk.on_the_way.items()))
        return next(((chunk, seq) for chunk, seq, who in on_the_way if who == thread), None)

    def lose(self, error: BaseException, seq: int | None = None) -> None:
        """Count an event that cannot be written."""
        if seq is None:
            seq, self._seq = self._seq, self._seq + 1
        self._losses.add(seq, error, self._clock())

    def tell(self) -> None:
        """Write the gap lines that are due, if writing works; else the next event or the end tries again."""
        with contextlib.suppress(Exception):
            if self._losses:
                self._put(b"")

    def make_room(self, length: int) -> None:
        """Call the open chunk full when a line of `length` bytes has no place in it."""
        if self._chunk is not None and not self._has_room(self._chunk, length):
            self.retire()

    def is_old(self) -> bool:
        """Whether the open chunk's age is over the limit."""
        chunk, max_age = self._chunk, self._options.max_age
        return chunk is not None and max_age is not None and self._monotonic() - chunk.born >= max_age

    def take_unsynced(self) -> int | None:
        """A descriptor to be given to `files.sync_and_close`, when something was written since the last sync."""
        chunk = self._chunk
        if chunk is None or chunk.file.size == chunk.file.synced:
            return None
        try:
            fd = chunk.file.duplicate()
        except OSError:
            return None  # out of descriptors: the next round tries again
        if chunk.on_the_way:
            chunk.file.synced = -1  # they may be written after the sync: the next round syncs again
        return fd

    def sync(self, chunk: FillingChunk) -> None:
        """Return once the chunk's bytes are on the medium; where that fails it is said once."""
        try:
            chunk.file.sync()
            self._sync_fails = False
        except OSError as error:
            if not self._sync_fails:
                self._say(f"cannot sync {chunk.file.path}: {error}; on loss of power its last events may be missing")
            self._sync_fails = True

    def retire(self) -> None:
        """Call the open chunk full; the one with the last number gets the writer's end line first."""
        chunk = self._chunk
        if chunk is None:
            return
        if self.on_last_number and not self._ended:
            self._end(chunk)
        chunk.end_seq = self._seq
        self.full.add(chunk)
        self._chunk = None

    def seal(self) -> None:
        """Seal all chunks that nobody else has taken."""
        self.retire()
        self._seal_full()

    def close(self) -> None:
        """End the writer in order: a last gap line, the end line, sealed, the lock given back."""
        self._wait_for_quiet(_LONG_QUIET_SECONDS)
        self._write_failed()
        if (self._seq or self._losses) and not self._ended:
            self._end(None)
        self.seal()
        self.full.let_go()
        try:
            self._lock.give_back(delete=not self.full.left_open)
        except OSError as error:
            self._say(f"cannot delete the lock file of writer {self._lock.writer}: {error}; the next export does")

    def leave(self) -> list[Gap]:
        """Give everything back without an end, and return what a next writer has to tell."""
        self._wait_for_quiet(QUIET_SECONDS)
        for failed in self.mend():
            self.lose(failed.error, failed.seq)
            failed.lost.append(failed.error)
        self._let_go()
        self._lock.give_back(delete=False)
        return self._losses.left_by(self._lock.writer)

    def is_deleted(self) -> bool:
        """Whether the open chunk has been deleted under the writer."""
        with contextlib.suppress(OSError):  # a file system that cannot say: then the next seal will
            return self._chunk is not None and self._chunk.file.is_deleted()
        return False

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, touching nothing on disk."""
        self._lock.forget()
        for chunk in self._chunks():
            chunk.on_the_way.clear()  # those threads are in the parent
        self._let_go()

    # -------------------------------------------------------------- inside

    def _chunks(self) -> list[FillingChunk]:
        return self.full.all() if self._chunk is None else [*self.full.all(), self._chunk]

    def _wait_for_quiet(self, seconds: float) -> None:
        end = self._monotonic() + seconds
        for chunk in self._chunks():
            chunk.is_quiet(end - self._monotonic())

    def _let_go(self) -> None:
        if self._chunk is not None:
            self._chunk.close()
            self._chunk = None
        self.full.let_go()

    def _put(self, line: bytes, seq: int | None = None) -> None:
        first, chunk = self._seq, None
        try:
            chunk = self._chunk_for(len(line))
            first = self._seq
            # in one write with the event: a disk with room for small lines only would fill up with gap lines
            data = self._gap_lines(chunk) if self._losses else b""
            if line:
                data += with_seq(line, self._seq if seq is None else seq)
                self._seq += seq is None
                chunk.adopted.update(() if seq is None else (seq,))
            chunk.file.append(data)
        except BaseException as error:
            # Ctrl-C may come after the bytes were written and before anybody could note it
            if isinstance(error, Exception) or chunk is None or not chunk.file.has_grown():
                self._seq = first
            elif not chunk.file.is_whole():  # recovery takes its lines apart
                self.lose(error, self._seq - 1 if seq is None else seq)
            elif self._losses:
                chunk.told += self._losses.told(self._clock())
            raise
        if self._losses:
            chunk.told += self._losses.told(self._clock())

    def _put_elsewhere(self, line: bytes, seq: int | None) -> bool:
        """This file takes no more (its size limit, a bad spot): try a new one, once."""
        if self._chunk is None or not (self._chunk.file.size or self._chunk.file.torn):
            return False
        self.seal()
        try:
            self._put(line, seq)
        except OSError:
            return False
        return True

    def _write_failed(self) -> None:
        for failed in self.mend():
            if not self.append(failed.line, failed.seq):
                failed.lost.append(failed.error)
                if self.uprooted:
                    self.lose(failed.error, failed.seq)

    def _seal_full(self) -> None:
        for chunk in self.full.free():
            self._write_failed()
            self.full.seal(chunk)

    def _emptied(self, chunk: FillingChunk) -> None:
        if self._chunk is None:
            self._series.take_back(chunk)

    def _count_vanished(self, chunk: FillingChunk) -> None:
        """The chunk is no longer where it was: its events are counted, and the next writer tells of them."""
        seqs = set(range(chunk.first_seq, chunk.end_seq)) - chunk.exempt | chunk.adopted
        cause = f"{chunk.name.open} was moved or deleted under its writer"
        self._losses.vanish(cause, seqs, chunk.opened_at, self._clock(), chunk.told)
        self._say(f"{chunk.file.path} was moved or deleted; its {len(seqs)} events are counted as lost")
        self.uprooted = True

    def _chunk_for(self, length: int) -> FillingChunk:
        """A chunk with room for a line of `length` bytes, and nobody else writing in it."""
        chunk = self._chunk
        if chunk is not None:
            if self._has_room(chunk, length) and chunk.is_quiet(QUIET_SECONDS):
                return chunk
            self.retire()
            if not self._leave_full() or self.full.are_many:
                self._seal_full()
        return self._open()

    def _has_room(self, chunk: FillingChunk, length: int) -> bool:
        file = chunk.file
        size = file.size + length - 1 + len(end_of_line(self._seq))
        return not file.torn and (file.size == 0 or (size <= self._max_bytes and not self.is_old()))

    def _open(self) -> FillingChunk:
        if self.uprooted:
            raise FileNotFoundError(errno.ENOENT, "its chunk was moved or deleted", str(self._outbox))
        self._lock.take()
        left_open, self.full.left_open = self.full.left_open, True  # Ctrl-C after the file was made
        try:
            self._chunk = chunk = self._series.begin(self._lock.writer, self._seq)
        except OSError:
            self.full.left_open = left_open
            raise
        self.full.left_open = left_open
        if self._options.sync != "seal":
            files.sync_dir(self._outbox)  # or a synced event would be in a file without a name
        return chunk

    def _control_line(self, chunk: FillingChunk, control: str, message: str, **fields: object) -> bytes:
        """A line of the writer's own, with the next `seq`."""
        line = with_seq(control_event(self._node_id, control, self._clock(), message, **fields), self._seq)
        chunk.exempt.add(self._seq)
        self._seq += 1
        return line

    def _gap_lines(self, chunk: FillingChunk) -> bytes:
        return b"".join(
            self._control_line(chunk, "gap", f"{gap.count} events could not be kept", **gap.fields())
            for gap in self._losses.gaps
        )

    def _end(self, chunk: FillingChunk | None) -> None:
        try:
            self._write_last_lines(chunk)
        except Exception as error:
            try:
                if not self._lock.free_room():
                    raise
                self._write_last_lines(chunk)
            except Exception:
                lost = self._losses.count
                also = f"; {lost} events were lost, and this line alone says so" if lost else ""
                self._say(f"cannot write the end of writer {self._lock.writer}: {error}{also}")

    def _write_last_lines(self, chunk: FillingChunk | None) -> None:
        if chunk is None:
            chunk = self._chunk_for(0)
        else:
            chunk.is_quiet(_LONG_QUIET_SECONDS)
        first = self._seq
        try:
            gaps = self._gap_lines(chunk)
            chunk.file.append(gaps + self._control_line(chunk, "end", "the writer was closed", reason="closed"))
        except Exception:
            self._seq = first
            raise
        if self._losses:
            chunk.told += self._losses.told(self._clock())
        self._ended = True
