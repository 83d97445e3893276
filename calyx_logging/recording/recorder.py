"""Recorder: one writer at a time for one configured outbox, safe for threads, forks, signals and exit.

Invariants:

* When `submit` returns, the event is in the kernel, or it is counted as lost.
* That holds for a `submit` inside another one of the same thread, too (a processor or a `__del__` that logs, a signal
  handler): it is written there and then, and up to 8 calls deep; what is deeper is counted.
* A forked child forgets its parent's writer and begins its own at its first event.
* No lock is held while a line is written; threads write side by side (`calyx_logging.recording.active_chunk`).
* What can wait (sealing, rolling what is idle, syncing) is done by `calyx_logging.recording.background`'s thread.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from threading import get_ident
from typing import Any

from calyx_logging.core import files
from calyx_logging.core.locks import probe
from calyx_logging.node import Node
from calyx_logging.recording.active_chunk import QUIET_SECONDS, Failed, FillingChunk
from calyx_logging.recording.background import LOOK_SECONDS, join, members, wake
from calyx_logging.recording.desk import Action, Desk, Local, ShortWriteError, State
from calyx_logging.recording.gaps import Gap
from calyx_logging.recording.options import WriterOptions
from calyx_logging.recording.writer import ChunkWriter

__all__ = ["Recorder", "seal"]

_MAX_DEPTH = 8
"""Calls within calls of one thread that are followed; a processor that logs for every event it sees would never end."""

_Encode = Callable[[Any], bytes | None]


_Full = tuple[int, ChunkWriter, FillingChunk]
_Place = tuple[FillingChunk, int, bytes] | tuple[FillingChunk, int]


class Recorder:
    """Takes events from any thread and keeps them in the node's outbox.

    Args:
        node: whose outbox.
        component: part of the chunks' names.
        options: when the writer rolls and syncs.
        background: whether the housekeeping thread may look after it; else nothing happens but in calls.

    Raises:
        ConfigError: the outbox cannot be written, or its file system has no locks.

    Attributes:
        reentrant: calls of `submit` so far that came from inside another one of the same thread.
    """

    def __init__(self, node: Node, component: str, options: WriterOptions, *, background: bool = True) -> None:
        self._node = node
        self._component = component
        self._options = options
        self._desks = (Desk(), Desk())
        self._local = Local()
        self._sealing = threading.RLock()
        self._sync_each = options.sync == "record"
        self._wake = wake if background else bool  # which says False
        self.reentrant = 0
        probe(node.outbox)
        join(self)

    def submit(self, encode: _Encode, item: Any) -> bool | None:
        """Encode `item` and write the line. Never raises.

        Returns:
            True; None when `encode` dropped it; False when either failed, and it was counted as lost.
        """
        state = self._local.state
        depth = state.depth
        state.depth = depth + 1
        try:
            if depth:
                self._follow(depth)
            line = encode(item)
        except Exception as error:  # said and counted in a gap line
            self._at_a_desk(self._lose, error)
            return False
        else:
            return None if line is None else self._keep(line, state)
        finally:
            state.depth = depth

    @property
    def outbox(self) -> Path:
        """The outbox it writes to."""
        return self._node.outbox

    def seal(self) -> None:
        """Seal the open chunk, if there is one, so that the next export takes it."""
        full: list[_Full] = []
        with self._sealing:
            self._at_each_desk(self._retire, full)
            self._seal_apart(full)
        self._tell_people()

    def close(self) -> None:
        """End the writer; a later event begins a new one."""
        with self._sealing:
            self._at_each_desk(self._end, None)
        self._tell_people()

    # -------------------------------------------------------------- inside

    def _follow(self, depth: int) -> None:
        self.reentrant += 1
        if depth >= _MAX_DEPTH:
            raise RecursionError(f"logged from inside logging, {_MAX_DEPTH} calls deep")

    def _keep(self, line: bytes, state: State) -> bool:
        """Write a line: the lock is held to give it its place, and not while it is written."""
        level = state.inside
        if level == len(self._desks):
            state.put_off.append((self._append, line))
            return True  # it will be, by whom this interrupts
        desk = self._desks[level]
        kept = True
        place: _Place | None = None
        written, data = 0, b""
        try:
            state.inside = level + 1
            with desk.lock:
                writer = desk.writer
                place = None if writer is None else writer.place(line, get_ident())
                if place is None:
                    kept = self._append(desk, line)
            if place is not None:
                chunk, seq, end = place
                data = line[:-1] + end
                written = chunk.file.write(data)
                if written != len(data):
                    raise ShortWriteError(errno.EIO, "the disk took a part of a line")
                if self._sync_each:
                    writer.sync(chunk)  # type: ignore[union-attr]
                del chunk.on_the_way[seq]
        except BaseException as error:
            if data and written == len(data):
                chunk.on_the_way.pop(seq, None)
            else:
                kept = self._unwritten(level, place, Failed(line, -1, data[:written], error, []))
            if not isinstance(error, Exception):
                raise
        finally:
            state.inside = level
        if desk.unsaid:
            desk.tell_people()
        if state.put_off:
            self._do_what_was_put_off(state)
        return kept

    def _unwritten(self, level: int, place: _Place | None, failed: Failed) -> bool:
        """Something came between a line's place and its write, or between that and its end; whether it is kept."""
        if place is not None:  # before the lock: who closes the writer holds it and waits for this
            place[0].fail(failed._replace(seq=place[1]))
        desk = self._desks[level]  # another one, if a signal handler forked
        with desk.lock:
            if place is None and desk.writer is not None:  # Ctrl-C, before it was known here
                place = desk.writer.placed_by(get_ident())
                if place is not None:
                    place[0].fail(failed._replace(seq=place[1]))
            self._mend(desk)
            while place is not None and place[0].failed:  # their writer has gone
                left = place[0].failed.popleft()
                if isinstance(left.error, Exception) and not self._write_alone(desk, left.line):
                    left.lost.append(left.error)
            if place is None and isinstance(failed.error, Exception):
                self._writer_at(desk).lose(failed.error)
                failed.lost.append(failed.error)
        return not failed.lost

    def _mend(self, desk: Desk) -> None:
        if desk.writer is not None:
            for failed in desk.writer.mend():
                if not self._write_alone(desk, failed.line, failed.seq):
                    failed.lost.append(failed.error)

    def _at_a_desk(self, action: Action, item: Any) -> None:
        """Do something with a writer.

        A signal handler or a finalizer that logs can find its thread in the middle of an append or a roll. It cannot
        wait for that, nor come back later (it may end the process), so there is a second desk with a writer of its own.
        Only what interrupts the work there is put off until that is done.
        """
        state = self._local.state
        level = state.inside
        if level == len(self._desks):
            state.put_off.append((action, item))
            return
        self._hold(level, action, item)
        self._desks[level].tell_people()
        self._do_what_was_put_off(state)

    def _do_what_was_put_off(self, state: State) -> None:
        while state.put_off:
            self._at_a_desk(*state.put_off.popleft())

    def _at_each_desk(self, action: Action, item: Any) -> None:
        """Do something at each desk, held; not inside a writer's own work (sealing in a signal handler)."""
        if not self._local.state.inside:
            for level in range(len(self._desks)):
                self._hold(level, action, item)

    def _hold(self, level: int, action: Action, item: Any) -> Any:
        # no generator: Ctrl-C would leave it, and the lock in it, to whoever keeps the traceback
        state, desk = self._local.state, self._desks[level]
        before = state.inside
        try:
            state.inside = level + 1
            with desk.lock:
                return action(desk, item)
        finally:
            state.inside = before

    def _retire(self, desk: Desk, full: list[_Full]) -> None:
        if desk.writer is not None:
            desk.writer.retire()
            self._take_full(desk, full)

    def _take_full(self, desk: Desk, full: list[_Full]) -> None:
        if desk.writer is not None:
            level = self._desks.index(desk)
            full.extend((level, desk.writer, chunk) for chunk in desk.writer.full.take())

    def _end(self, desk: Desk, _: None) -> None:
        self._close_leaving(desk)
        writer, desk.writer = desk.writer, None
        if writer is not None:
            writer.close()
            if writer.uprooted:
                self._new_writer(desk, writer.leave()).close()

    def _tell_people(self) -> None:
        """Say and do what came up in housekeeping, without its locks; also what an interrupted call put off."""
        state = self._local.state
        if not state.inside:
            for desk in self._desks:
                desk.tell_people()
            self._do_what_was_put_off(state)

    def _append(self, desk: Desk, line: bytes) -> bool:
        self._mend(desk)
        writer = self._writer_at(desk)
        if writer.on_last_number:
            writer.make_room(len(line))
            if writer.exhausted:
                desk.leaving.append(writer)  # a chunk of it may be in the hands of who seals
                desk.writer = self._new_writer(desk)
                self._wake()
        return self._write_alone(desk, line)

    def _write_alone(self, desk: Desk, line: bytes, seq: int | None = None) -> bool:
        """Write it, or have it counted and return False."""
        writer = self._writer_at(desk)
        try:
            if (kept := writer.append(line, seq)) or not writer.uprooted:
                return kept
            writer, seq = self._replace_if_uprooted(desk) or writer, None
            if (kept := writer.append(line)) or not writer.uprooted:
                return kept
            writer.uprooted = False
            raise FileNotFoundError(errno.ENOENT, "the outbox is gone", str(self._node.outbox))
        except Exception as error:  # no room on the disk is the writer's; this is no memory, or a fault of ours
            writer.lose(error, seq)
            return False

    def _lose(self, desk: Desk, error: BaseException) -> None:
        writer = self._writer_at(desk)
        writer.lose(error)
        writer.tell()

    def _writer_at(self, desk: Desk) -> ChunkWriter:
        if desk.writer is None:
            desk.writer = self._new_writer(desk)
            self._wake()
        return desk.writer

    def _new_writer(self, desk: Desk, gaps: Iterable[Gap] = ()) -> ChunkWriter:
        node = self._node
        return ChunkWriter(
            node.outbox,
            node.id,
            self._component,
            self._options,
            gaps=gaps,
            say=desk.unsaid.append,
            leave_full=self._wake,
        )

    def _close_leaving(self, desk: Desk) -> None:
        while desk.leaving:
            desk.leaving.pop().close()

    def _replace_if_uprooted(self, desk: Desk) -> ChunkWriter | None:
        """The folder was taken away under a writer: another takes over, and tells of what that could not keep."""
        if desk.writer is not None and desk.writer.uprooted:
            desk.writer = self._new_writer(desk, desk.writer.leave())
        return desk.writer

    def upkeep(self) -> float:
        """Roll an idle chunk, tell of gaps, sync; the seconds until there may be something to do again."""
        unsynced: list[int] = []
        full: list[_Full] = []
        with self._sealing:
            self._at_each_desk(self._look_after, (unsynced, full))
            for fd in unsynced:
                self._sync_apart(fd)
            self._seal_apart(full)
        self._tell_people()
        waits = [LOOK_SECONDS]
        if self._options.max_age is not None:
            waits.append(max(self._options.max_age / 16, 0.05))
        if self._options.sync == "interval":
            waits.append(self._options.sync_interval)
        return min(waits)

    def _sync_apart(self, fd: int) -> None:
        """Sync and close what a writer's `take_unsynced` gave; it may take its time."""
        try:
            files.sync_and_close(fd)
        except OSError as error:
            self._desks[0].unsaid.append(
                f"cannot sync an open chunk: {error}; on loss of power its last events may be missing"
            )

    def _look_after(self, desk: Desk, to_do: tuple[list[int], list[_Full]]) -> None:
        self._close_leaving(desk)
        if desk.writer is None:
            return
        if desk.writer.is_deleted():
            desk.writer.seal()
        if desk.writer.is_old():
            desk.writer.retire()
        writer = self._replace_if_uprooted(desk) or desk.writer
        writer.tell()
        unsynced, full = to_do
        if self._options.sync == "interval" and (fd := writer.take_unsynced()) is not None:
            unsynced.append(fd)
        self._take_full(desk, full)

    def _seal_apart(self, full: list[_Full]) -> None:
        """Seal chunks that were taken, without the desk's lock while the disk works."""
        for level, writer, chunk in full:
            chunk.is_quiet(QUIET_SECONDS)
            if not self._hold(level, self._prepare, (writer, chunk)):
                continue
            failure = None
            try:
                chunk.seal()
            except OSError as error:
                failure = error
            self._hold(level, self._settle, (writer, chunk, failure))

    def _prepare(self, desk: Desk, item: tuple[ChunkWriter, FillingChunk]) -> bool:
        writer, chunk = item
        self._mend(desk)
        return writer.full.prepare(chunk)

    def _settle(self, desk: Desk, item: tuple[ChunkWriter, FillingChunk, OSError | None]) -> None:
        writer, chunk, failure = item
        writer.full.settle(chunk, failure)
        self._replace_if_uprooted(desk)

    def after_fork_in_child(self) -> None:
        """Forget all that is the parent's."""
        desks, self._desks = self._desks, (Desk(), Desk())
        self._local = Local()
        self._sealing = threading.RLock()
        for desk in desks:
            for writer in (desk.writer, *desk.leaving):
                if writer is not None:
                    writer.abandon()


def seal() -> None:
    """Seal the open chunk of every handler in this process, so that an export takes all that was logged so far.

    For long-living processes (a notebook, a server); logging goes on in new chunks.
    """
    for recorder in members():
        recorder.seal()
