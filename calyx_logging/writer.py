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
import os
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from calyx_logging import durable
from calyx_logging.chunk import MAX_CHUNK_NUMBER, ChunkName
from calyx_logging.event import control_event, utc_text, with_seq

__all__ = ["ChunkWriter", "WriterOptions", "lock_file", "os_lock", "say", "write_holder"]

_SEQ_ROOM = 32


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


@dataclass
class _Gap:
    """Events that could not be written since writing last worked."""

    cause: str
    since: float
    until: float
    count: int = 0
    seqs: list[list[int]] = field(default_factory=list)

    def add(self, seq: int, now: float) -> None:
        self.count += 1
        self.until = now
        if self.seqs and self.seqs[-1][1] == seq - 1:
            self.seqs[-1][1] = seq
        else:
            self.seqs.append([seq, seq])


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
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.id = secrets.token_hex(4)
        self._outbox = outbox
        self._node_id = node_id
        self._component = component
        self._options = options
        self._clock = clock
        self._monotonic = monotonic
        self._lock: FileLock | None = None
        self._file: durable.AppendFile | None = None
        self._name: ChunkName | None = None
        self._next_number = 0
        self._seq = 0
        self._born = 0.0
        self._synced_size = 0
        self._gap: _Gap | None = None
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

    @property
    def has_open_chunk(self) -> bool:
        """Whether there is a chunk to seal."""
        return self._file is not None

    def append(self, line: bytes) -> bool:
        """Write one event; False when it could not be kept (it is counted then)."""
        seq = self._seq
        try:
            if self._gap is not None:
                self._write_gap(self._gap)
                seq = self._seq
            file = self._file_for(len(line))
            self._seq = seq + 1
            file.append(with_seq(line, seq))
        except OSError as error:
            self._seq = seq + 1
            self._lose(seq, error)
            return False
        if self._options.sync == "record":
            self.sync_if_due()
        return True

    def lose(self, error: BaseException) -> None:
        """Count an event that never became a line."""
        seq, self._seq = self._seq, self._seq + 1
        self._lose(seq, error)

    def roll_for(self, length: int) -> None:
        """Seal the open chunk when a line of `length` bytes has no place in it."""
        if self._file is not None and not self._has_room(self._file, length):
            self.seal()

    def roll_if_old(self) -> None:
        """Seal the open chunk when its age is over the limit."""
        if self._file is not None and self._is_old():
            self.seal()

    def sync_if_due(self) -> None:
        """Sync what was written since the last sync."""
        file = self._file
        if file is None or file.size == self._synced_size:
            return
        try:
            self._sync(file)
            self._sync_fails = False
        except OSError as error:
            if not self._sync_fails:
                say(f"cannot sync {file.path}: {error}; on loss of power its last events may be missing")
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
                self._sync(file)
                file.close()
                durable.rename_new(file.path, self._outbox / name.sealed)
                durable.sync_dir(self._outbox)
            self._left_open = left_open
        except OSError as error:
            say(f"cannot seal {file.path}: {error}; the next export seals it")
            file.close()

    def close(self) -> None:
        """End the writer in order: a last gap line, the end line, sealed, the lock given back."""
        if self._seq and not self._ended:
            self._end(None)
        self.seal()
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(force=True)
            if not self._left_open:
                try:
                    durable.remove(lock_file(self._outbox, self.id))
                except OSError as error:
                    say(f"cannot delete the lock file of writer {self.id}: {error}; the next export deletes it")

    def abandon(self) -> None:
        """In a forked child: let go of what is the parent's, touching nothing on disk."""
        file, self._file = self._file, None
        self._lock = None  # filelock has closed the child's copy; only the parent may unlock
        if file is not None:
            file.close()

    # -------------------------------------------------------------- inside

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
        if self._next_number > MAX_CHUNK_NUMBER:
            raise OSError(f"writer {self.id} has used up its {MAX_CHUNK_NUMBER + 1} chunk numbers")
        if self._lock is None:
            self._lock = self._take_lock()
        when = datetime.fromtimestamp(int(self._clock()), UTC)
        if self._name is not None:
            when = max(when, self._name.when)
        name = ChunkName(when, self._component, self.id, self._next_number)
        self._file = durable.AppendFile(self._outbox / name.open)
        self._name = name
        self._next_number += 1
        self._born = self._monotonic()
        self._synced_size = 0
        if self._options.sync != "seal":
            durable.sync_dir(self._outbox)  # or a synced event would be in a file without a name
        return self._file

    def _take_lock(self) -> FileLock:
        lock = os_lock(lock_file(self._outbox, self.id), on_acquired=write_holder)
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

    def _sync(self, file: durable.AppendFile) -> None:
        size = file.size
        file.sync()
        self._synced_size = size

    def _write_control(self, file: durable.AppendFile | None, control: str, message: str, **fields: object) -> None:
        """A line of the writer's own, into `file` or where there is room; it takes a `seq` only when it is written."""
        line = control_event(self._node_id, control, self._clock(), message, **fields)
        (file or self._file_for(len(line))).append(with_seq(line, self._seq))
        self._seq += 1

    def _write_gap(self, gap: _Gap, file: durable.AppendFile | None = None) -> None:
        self._write_control(
            file,
            "gap",
            f"{gap.count} events could not be written",
            count=gap.count,
            seqs=gap.seqs,
            **{"from": utc_text(gap.since), "to": utc_text(gap.until)},
            cause=gap.cause,
        )
        self._gap = None
        say(f"writing to {self._outbox} again; {gap.count} events were lost ({gap.cause})")

    def _end(self, file: durable.AppendFile | None) -> None:
        try:
            if self._gap is not None:
                self._write_gap(self._gap, file)
            self._write_control(file, "end", "the writer was closed", reason="closed")
            self._ended = True
        except OSError as error:
            say(f"cannot write the end of writer {self.id}: {error}")

    def _lose(self, seq: int, error: BaseException) -> None:
        now = self._clock()
        if self._gap is None:
            cause = error.strerror if isinstance(error, OSError) and error.strerror else None
            self._gap = _Gap(cause or f"{type(error).__name__}: {error}"[:200], now, now)
            say(f"cannot write to {self._outbox}: {error}; events are lost and counted until it works again")
        self._gap.add(seq, now)


def lock_file(outbox: Path, writer: str) -> Path:
    """The file that is locked while a writer lives."""
    return outbox / ".writers" / f"{writer}.lock"


def os_lock(path: Path, *, on_acquired: Callable[[int], None] | None = None) -> FileLock:
    """A lock by the operating system alone, one for all threads, whose file is kept on release."""
    durable.make_dirs(path.parent)
    return FileLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True, on_acquired=on_acquired)


def write_holder(fd: int) -> None:
    """Say in a lock file who holds it: process id and host, behind one space (Windows locks the first byte)."""
    with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only nameless
        os.lseek(fd, 0, os.SEEK_SET)
        os.write(fd, f" {os.getpid()} {socket.gethostname()}\n".encode())


def say(text: str) -> None:
    """One line on standard error, where there is one."""
    try:
        sys.stderr.write(f"calyx-logging: {text}\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        return  # pythonw has no stderr, a closed one raises ValueError: then nobody can be told
