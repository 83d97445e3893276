"""ChunkWriter: one writer's lock, its chunks and its `seq`.

Invariants:

* The writer's lock is taken before its first chunk exists and given back after its last one is sealed.
* Every event that is offered takes a `seq`; one that could not be written is counted and named in a gap line as soon
  as writing works again.
* An open chunk becomes sealed by sync, close, rename, directory sync, in this order; where one of them fails the
  chunk stays open for recovery and the writer goes on with the next number.
* Nothing here raises `OSError` to its caller, and nothing sleeps.

Not thread-safe: `calyx_logging.recorder` serialises the calls.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from calyx_logging import durable
from calyx_logging.chunk import MAX_CHUNK_NUMBER, ChunkName
from calyx_logging.errors import say
from calyx_logging.event import control_event, with_seq
from calyx_logging.gap import Gap, Losses
from calyx_logging.locks import LockText, OsLock, lock_file, os_lock

__all__ = ["ChunkWriter", "WriterOptions"]

_SEQ_ROOM = 32

_ANOTHER_FILE_MAY_DO = (errno.EFBIG, errno.EIO, errno.EBADF, getattr(errno, "ESTALE", errno.EIO))


@dataclass(frozen=True)
class WriterOptions:
    """What a writer does when.

    Attributes:
        max_bytes: a chunk is rolled before it would grow over this many bytes (one larger event has a chunk alone).
        max_age: seconds after which a chunk is rolled, idle or not; None for never.
        sync: `"seal"` (when sealed), `"interval"` (and every `sync_interval` seconds), `"record"` (after each event).
        sync_interval: seconds.
    """

    max_bytes: int
    max_age: float | None
    sync: str
    sync_interval: float


class ChunkWriter:
    """Writes lines into chunks of one outbox, alone.

    Args:
        outbox: the node's outbox folder.
        node_id: for control lines.
        component: part of the chunks' names.
        options: when to roll and sync.
        clock: seconds since the epoch.
        monotonic: seconds that never go back, for ages.
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
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.uprooted = False
        self._outbox = outbox
        self._node_id = node_id
        self._component = component
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._lock: OsLock | None = None
        self._reserve = LockText()
        self._file: durable.AppendFile | None = None
        self._name: ChunkName | None = None
        self._next_number = 0
        self._seq = 0
        self._first_seq = 0
        self._control_seqs: set[int] = set()
        self._born = self._opened_at = 0.0
        self._say = say
        self._losses = Losses(outbox, gaps, say=say)
        self._sync_fails = False
        self._ended = False
        self._left_open = False

    # -------------------------------------------------------------- for the recorder

    @property
    def on_last_number(self) -> bool:
        """Whether its last chunk number is taken."""
        return self._next_number > MAX_CHUNK_NUMBER

    @property
    def exhausted(self) -> bool:
        """Whether its last chunk is sealed, so that a new writer has to begin."""
        return self.on_last_number and self._file is None

    def append(self, line: bytes) -> bool:
        """Write one event; False when it could not be kept: then it is counted, unless the writer is `uprooted`."""
        try:
            self._put(line)
        except OSError as error:
            if isinstance(error, FileNotFoundError):
                self.uprooted = True
                return False
            if error.errno not in _ANOTHER_FILE_MAY_DO or not self._put_elsewhere(line):
                if not self.uprooted:
                    self.lose(error)
                return False
        if self._options.sync == "record" and self._file is not None:
            self._sync_now(self._file)
        return True

    def lose(self, error: BaseException) -> None:
        """Count an event that cannot be written."""
        seq, self._seq = self._seq, self._seq + 1
        self._losses.add(seq, error, self._clock())

    def tell(self) -> None:
        """Write the gap lines that are due, if writing works."""
        if self._losses:
            # where it goes on not working, the next event or the end tries again
            with contextlib.suppress(Exception):
                self._put(b"")

    def roll_for(self, length: int) -> None:
        """Seal the open chunk when a line of `length` bytes has no place in it."""
        if self._file is not None and not self._has_room(self._file, length):
            self.seal()

    def roll_if_old(self) -> None:
        """Seal the open chunk when its age is over the limit."""
        if self._file is not None and self._is_old():
            self.seal()

    def take_unsynced(self) -> int | None:
        """A descriptor to be given to `durable.sync_and_close`, when something was written since the last sync."""
        if self._file is None or self._file.size == self._file.synced:
            return None
        try:
            return self._file.duplicate()
        except OSError:
            return None  # out of descriptors: the next round tries again

    def _sync_now(self, file: durable.AppendFile) -> None:
        try:
            file.sync()
            self._sync_fails = False
        except OSError as error:
            if not self._sync_fails:
                self._say(f"cannot sync {file.path}: {error}; on loss of power its last events may be missing")
            self._sync_fails = True

    def seal(self) -> None:
        """Seal the open chunk, if there is one; the one with the last number gets the writer's end line first."""
        file, name = self._file, self._name
        if file is None or name is None:
            return
        if self.on_last_number:
            self._end(file)
        self._file = None
        left_open, self._left_open = self._left_open, True  # until it is known to be sealed
        try:
            if file.torn:
                file.close()
                return
            if file.size == 0:
                file.close()
                durable.remove(file.path)
                self._next_number = name.number
            else:
                file.sync()
                file.close()
                durable.rename_new(file.path, self._outbox / name.sealed)
                durable.sync_dir(self._outbox)
            self._left_open = left_open
            self._losses.sealed()
        except FileNotFoundError:
            _close_quietly(file)
            self._left_open = left_open
            self._count_vanished(name)
        except OSError as error:
            _close_quietly(file)
            self._say(f"cannot seal {file.path}: {error}; the next export seals it")
        except BaseException:  # Ctrl-C in the middle of the sync: it is still this writer's open chunk
            if not file.closed:
                self._file = file
                self._left_open = left_open
            raise

    def close(self) -> None:
        """End the writer in order: a last gap line, the end line, sealed, the lock given back."""
        if (self._seq or self._losses) and not self._ended:
            self._end(None)
        self.seal()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(force=True)
            if not self._left_open:
                try:
                    durable.remove(lock_file(self._outbox, self.id))
                except OSError as error:
                    self._say(f"cannot delete the lock file of writer {self.id}: {error}; the next export deletes it")

    def leave(self) -> list[Gap]:
        """Give everything back without an end, and return what a next writer has to tell."""
        file, self._file = self._file, None
        if file is not None:
            _close_quietly(file)
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(force=True)
        return self._losses.left_by(self.id)

    def is_deleted(self) -> bool:
        """Whether the open chunk has been deleted under the writer."""
        with contextlib.suppress(OSError):  # a file system that cannot say: then the next seal will
            return self._file is not None and self._file.is_deleted()
        return False

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, touching nothing on disk."""
        file, self._file = self._file, None
        self._lock = None  # filelock has closed the child's copy; only the parent may unlock
        if file is not None:
            _close_quietly(file)

    # -------------------------------------------------------------- inside

    def _put(self, line: bytes) -> None:
        first, file = self._seq, None
        try:
            file = self._file_for(len(line))
            first = self._seq
            # in one write with the event: a disk with room for small lines only would fill up with gap lines
            data = self._gap_lines() if self._losses else b""
            if line:
                data += with_seq(line, self._seq)
                self._seq += 1
            file.append(data)
        except BaseException as error:
            # Ctrl-C may come after the bytes were written and before anybody could note it
            if isinstance(error, Exception) or file is None or not file.has_grown():
                self._rewind(first)
            elif self._losses:
                self._losses.told(self._clock())
            raise
        if self._losses:
            self._losses.told(self._clock())

    def _put_elsewhere(self, line: bytes) -> bool:
        """This file takes no more (its size limit, a bad spot): try a new one, once."""
        if self._file is None or not (self._file.size or self._file.torn):
            return False
        self.seal()
        try:
            self._put(line)
        except OSError:
            return False
        return True

    def _count_vanished(self, name: ChunkName) -> None:
        """The chunk is no longer where it was: its events are counted, and the next writer tells of them."""
        seqs = set(range(self._first_seq, self._seq)) - self._control_seqs
        cause = f"{name.open} was moved or deleted under its writer"
        self._losses.vanish(cause, seqs, self._opened_at, self._clock())
        self._say(f"{self._outbox / name.open} was moved or deleted; its {len(seqs)} events are counted as lost")
        self.uprooted = True

    def _file_for(self, length: int) -> durable.AppendFile:
        if self._file is not None:
            if self._has_room(self._file, length):
                return self._file
            self.seal()
        return self._open()

    def _has_room(self, file: durable.AppendFile, length: int) -> bool:
        if file.torn:
            return False
        return file.size == 0 or (file.size + length + _SEQ_ROOM <= self._options.max_bytes and not self._is_old())

    def _is_old(self) -> bool:
        max_age = self._options.max_age
        return max_age is not None and self._monotonic() - self._born >= max_age

    def _open(self) -> durable.AppendFile:
        if self.uprooted:
            raise FileNotFoundError(errno.ENOENT, "its chunk was moved or deleted", str(self._outbox))
        if self._next_number > MAX_CHUNK_NUMBER:
            raise OSError(f"writer {self.id} has used up its {MAX_CHUNK_NUMBER + 1} chunk numbers")
        if self._lock is None:
            self._lock = self._take_lock()
        when = datetime.fromtimestamp(int(self._clock()), UTC)
        if self._name is not None:
            when = max(when, self._name.when)
        number = self._next_number
        name = ChunkName(when, self._component, self.id, number)
        # the number is taken first: Ctrl-C right after the file was made must not leave its name in the way
        self._next_number = number + 1
        left_open, self._left_open = self._left_open, True
        try:
            file = durable.AppendFile(self._outbox / name.open)
        except OSError:
            self._next_number = number
            self._left_open = left_open
            raise
        self._file, self._name = file, name
        self._left_open = left_open
        self._born = self._monotonic()
        self._opened_at = self._clock()
        self._first_seq = self._seq
        self._control_seqs.clear()
        if self._options.sync != "seal":
            durable.sync_dir(self._outbox)  # or a synced event would be in a file without a name
        return file

    def _take_lock(self) -> OsLock:
        root = self._outbox.parents[2]
        if not root.is_dir():  # a root that was deleted is not made again
            raise FileNotFoundError(errno.ENOENT, "the root is gone", str(root))
        lock = os_lock(lock_file(self._outbox, self.id), on_acquired=self._reserve.fill)
        try:
            lock.acquire(blocking=False)
        except Timeout:  # another writer drew the same eight digits
            self.id = secrets.token_hex(4)
            return self._take_lock()
        except NotImplementedError as error:
            raise OSError(str(error)) from error
        # before the first chunk, so that no loss of power leaves a chunk whose writer seems never to have been
        durable.sync_dir(self._outbox / ".writers")
        return lock

    def _control_line(self, control: str, message: str, **fields: object) -> bytes:
        """A line of the writer's own, with the next `seq`."""
        line = with_seq(control_event(self._node_id, control, self._clock(), message, **fields), self._seq)
        self._control_seqs.add(self._seq)
        self._seq += 1
        return line

    def _gap_lines(self) -> bytes:
        return b"".join(
            self._control_line("gap", f"{gap.count} events could not be kept", **gap.fields())
            for gap in self._losses.gaps
        )

    def _rewind(self, seq: int) -> None:
        """Lines from this `seq` on were made and not written: it is free again."""
        self._control_seqs.difference_update(range(seq, self._seq))
        self._seq = seq

    def _end(self, file: durable.AppendFile | None) -> None:
        try:
            self._write_last_lines(file)
        except Exception as error:
            try:
                if not self._reserve.give_up():
                    raise
                self._write_last_lines(file)
            except Exception:
                lost = self._losses.count
                also = f"; {lost} events were lost, and this line alone says so" if lost else ""
                self._say(f"cannot write the end of writer {self.id}: {error}{also}")

    def _write_last_lines(self, file: durable.AppendFile | None) -> None:
        if file is None:
            file = self._file_for(0)
        first = self._seq
        try:
            file.append(self._gap_lines() + self._control_line("end", "the writer was closed", reason="closed"))
        except Exception:
            self._rewind(first)
            raise
        if self._losses:
            self._losses.told(self._clock())
        self._ended = True


def _close_quietly(file: durable.AppendFile) -> None:
    with contextlib.suppress(OSError):  # what failed before is what is said
        file.close()
