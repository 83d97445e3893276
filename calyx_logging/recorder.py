"""Recorder: one writer at a time for one configured outbox, safe for threads, forks, signals and exit.

Invariants:

* When `submit` returns, the event is in the kernel, or it is counted as lost.
* That holds for a `submit` inside another one of the same thread, too (a processor or a `__del__` that logs, a signal
  handler): it is written there and then, and up to 8 calls deep; what is deeper is counted.
* A forked child forgets its parent's writer and begins its own at its first event.
* All recorders of a process share one daemon thread, started with the first chunk that needs it, which rolls idle
  chunks and syncs; a forked child starts its own.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from calyx_logging import durable
from calyx_logging.errors import ConfigError, StorageError, say
from calyx_logging.gap import Gap
from calyx_logging.locks import lock_file, os_lock
from calyx_logging.node import Node
from calyx_logging.writer import ChunkWriter, WriterOptions

__all__ = ["Recorder", "seal"]

_LOOK_SECONDS = 10.0
"""How often the upkeep thread looks whether an open chunk was deleted under its writer."""

_MAX_DEPTH = 8
"""Calls within calls of one thread that are followed; a processor that logs for every event it sees would never end."""

_Encode = Callable[[Any], bytes | None]


class _Local(threading.local):
    """What a thread is doing in a recorder: how many calls deep, how many desks it is at, what it put off."""

    depth = 0
    inside = 0

    def __init__(self) -> None:
        self.put_off: deque[tuple[_Action, Any]] = deque()


class _Desk:
    """A writer and the lock of those who use it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.writer: ChunkWriter | None = None
        self.unsaid: list[str] = []

    def tell_people(self) -> None:
        """Say what came up while the desk was held: standard error may lead back into logging."""
        while self.unsaid:
            say(self.unsaid.pop(0))


_Action = Callable[[_Desk, Any], None]


class Recorder:
    """Takes events from any thread and keeps them in the node's outbox.

    Args:
        node: whose outbox.
        component: part of the chunks' names.
        options: when the writer rolls and syncs.

    Raises:
        ConfigError: the outbox cannot be written, or its file system has no locks.
    """

    def __init__(self, node: Node, component: str, options: WriterOptions) -> None:
        self._node = node
        self._component = component
        self._options = options
        self._desks = (_Desk(), _Desk())
        self._local = _Local()
        self._probe()
        _recorders.add(self)

    def submit(self, encode: _Encode, item: Any) -> None:
        """Encode `item` (None drops it) and write the line; counted as lost when either fails. Never raises."""
        local = self._local
        depth = local.depth
        local.depth = depth + 1
        try:
            if depth >= _MAX_DEPTH:
                raise RecursionError(f"logged from inside logging, {_MAX_DEPTH} calls deep")
            line = encode(item)
        except Exception as error:  # said and counted in a gap line
            self._at_a_desk(self._lose, error)
        else:
            if line is not None:
                self._at_a_desk(self._append, line)
        finally:
            local.depth = depth

    def seal(self) -> None:
        """Seal the open chunk, if there is one, so that the next export takes it."""
        for desk in self._each_desk():
            if desk.writer is not None:
                desk.writer.seal()
                self._replace_if_uprooted(desk)

    def close(self) -> None:
        """End the writer; a later event begins a new one."""
        for desk in self._each_desk():
            writer, desk.writer = desk.writer, None
            if writer is not None:
                writer.close()
                if writer.uprooted:
                    self._new_writer(desk, writer.leave()).close()

    # -------------------------------------------------------------- inside

    def _probe(self) -> None:
        """Fail now, when configured, rather than at the first event."""
        outbox = self._node.outbox
        path = lock_file(outbox, f"probe-{os.getpid()}-{threading.get_ident()}")
        try:
            lock = os_lock(path)
            with lock:
                pass
            durable.remove(path)
        except NotImplementedError as error:
            raise ConfigError(
                "this file system has no locks", path=outbox, hint="put the root on a local disk"
            ) from error
        except OSError as error:
            storage = StorageError.of(error, "write to the outbox", outbox)
            raise ConfigError(
                storage.message, path=outbox, hint="make the folder writable, or name another root"
            ) from error

    def _at_a_desk(self, action: _Action, item: Any) -> None:
        """Do something with a writer.

        A signal handler or a finalizer that logs can find its thread in the middle of an append, a roll or a seal. It
        can neither wait for that nor come back later (it may end the process), so there is a second desk with a writer
        of its own. Only what interrupts the work there is put off until that is done.
        """
        local = self._local
        level = local.inside
        if level == len(self._desks):
            local.put_off.append((action, item))
            return
        desk = self._desks[level]
        local.inside = level + 1
        try:
            with desk.lock:
                action(desk, item)
        finally:
            local.inside = level
        if desk.unsaid:
            desk.tell_people()
        while local.put_off:
            self._at_a_desk(*local.put_off.popleft())

    def _each_desk(self) -> Iterator[_Desk]:
        """Each desk in turn, held; none from inside a writer's own work (sealing in a signal handler)."""
        local = self._local
        if local.inside:
            return
        while local.put_off:  # left there by a call that was interrupted
            self._at_a_desk(*local.put_off.popleft())
        for level, desk in enumerate(self._desks):
            local.inside = level + 1
            try:
                with desk.lock:
                    yield desk
            finally:
                local.inside = 0
            desk.tell_people()
        while local.put_off:
            self._at_a_desk(*local.put_off.popleft())

    def _append(self, desk: _Desk, line: bytes) -> None:
        writer = self._writer_at(desk)
        if writer.on_last_number:
            writer.roll_for(len(line))
            if writer.exhausted:
                writer.close()
                writer = desk.writer = self._new_writer(desk)
        try:
            if writer.append(line) or not writer.uprooted:
                return
            writer = self._replace_if_uprooted(desk) or writer
            if writer.append(line) or not writer.uprooted:
                return
            writer.uprooted = False
            raise FileNotFoundError(errno.ENOENT, "the outbox is gone", str(self._node.outbox))
        except Exception as error:  # no room on the disk is the writer's; this is no memory, or a fault of ours
            writer.lose(error)

    def _lose(self, desk: _Desk, error: BaseException) -> None:
        writer = self._writer_at(desk)
        writer.lose(error)
        writer.tell()

    def _writer_at(self, desk: _Desk) -> ChunkWriter:
        if desk.writer is None:
            desk.writer = self._new_writer(desk)
            _begin_upkeep()
        return desk.writer

    def _new_writer(self, desk: _Desk, gaps: Iterable[Gap] = ()) -> ChunkWriter:
        node = self._node
        return ChunkWriter(node.outbox, node.id, self._component, self._options, gaps=gaps, say=desk.unsaid.append)

    def _replace_if_uprooted(self, desk: _Desk) -> ChunkWriter | None:
        """The folder was taken away under a writer: another takes over, and tells of what that could not keep."""
        if desk.writer is not None and desk.writer.uprooted:
            desk.writer = self._new_writer(desk, desk.writer.leave())
        return desk.writer

    def _upkeep(self) -> float:
        """Roll an idle chunk, tell of gaps, sync; the seconds until there may be something to do again."""
        unsynced = []
        for desk in self._each_desk():
            if desk.writer is None:
                continue
            if desk.writer.is_deleted():
                desk.writer.seal()
            desk.writer.roll_if_old()
            writer = self._replace_if_uprooted(desk) or desk.writer
            writer.tell()
            if self._options.sync == "interval" and (fd := writer.take_unsynced()) is not None:
                unsynced.append(fd)
        for fd in unsynced:  # a slow disk holds up nobody who logs
            _sync_apart(fd)
        waits = [_LOOK_SECONDS]
        if self._options.max_age is not None:
            waits.append(max(self._options.max_age / 4, 0.05))
        if self._options.sync == "interval":
            waits.append(self._options.sync_interval)
        return min(waits)

    def _after_fork_in_child(self) -> None:
        desks, self._desks = self._desks, (_Desk(), _Desk())
        self._local = _Local()
        for desk in desks:
            if desk.writer is not None:
                desk.writer.abandon()


# ------------------------------------------------------------------ one process

_recorders: weakref.WeakSet[Recorder] = weakref.WeakSet()
_upkeep_lock = threading.Lock()
_upkeep_thread: threading.Thread | None = None
_upkeep_wake = threading.Event()
_finalizer_pid = 0


def seal() -> None:
    """Seal the open chunk of every handler in this process, so that an export takes all that was logged so far.

    For long-living processes (a notebook, a server); logging goes on in new chunks.
    """
    for recorder in list(_recorders):
        recorder.seal()


def _sync_apart(fd: int) -> None:
    """Sync and close what a writer's `take_unsynced` gave; it may take its time."""
    try:
        durable.sync_and_close(fd)
    except OSError as error:
        say(f"cannot sync an open chunk: {error}; on loss of power its last events may be missing")


def _close_all() -> None:
    for recorder in list(_recorders):
        recorder.close()


def _begin_upkeep() -> None:
    global _upkeep_thread
    _close_at_end_of_multiprocessing_child()
    if not _upkeep_lock.acquire(blocking=False):
        return  # somebody is at it: another thread, or this very one under a signal handler
    try:
        if _upkeep_thread is None or not _upkeep_thread.is_alive():
            thread = threading.Thread(target=_upkeep_forever, name="calyx-logging-upkeep", daemon=True)
            thread.start()
            _upkeep_thread = thread
        else:
            _upkeep_wake.set()  # a shorter interval may have come
    except RuntimeError:
        return  # the interpreter is shutting down; what is open now is sealed at exit
    finally:
        _upkeep_lock.release()


def _upkeep_forever() -> None:
    while True:
        wait = _LOOK_SECONDS
        for recorder in list(_recorders):
            try:
                wait = min(wait, recorder._upkeep())
            except Exception as error:  # one recorder's trouble must not end the care for all
                say(f"upkeep of {recorder._node.outbox}: {type(error).__name__}: {error}")
        _upkeep_wake.wait(wait)
        _upkeep_wake.clear()


def _close_at_end_of_multiprocessing_child() -> None:
    """A multiprocessing child ends with os._exit and runs no atexit; its own finalizers it does run."""
    global _finalizer_pid
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is None or process is None or _finalizer_pid == os.getpid() or process.parent_process() is None:
        return
    _finalizer_pid = os.getpid()
    util.Finalize(None, _close_all, exitpriority=-100)


def _after_fork_in_child() -> None:
    global _upkeep_thread, _upkeep_lock, _upkeep_wake
    _upkeep_thread = None
    _upkeep_lock = threading.Lock()
    _upkeep_wake = threading.Event()
    for recorder in list(_recorders):
        recorder._after_fork_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
