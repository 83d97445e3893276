"""Recorder: one writer at a time for one configured outbox, safe for threads, forks, signals and exit.

Invariants:

* When `submit` returns, the event is in the kernel, or it is counted as lost.
* A `submit` that happens inside another one of the same thread (a processor or a `__del__` that logs, a signal
  handler) is deferred, and written by the outer one before that returns.
* A forked child forgets its parent's writer and begins its own at its first event.
* All recorders of a process share one daemon thread, started with the first chunk that needs it, which rolls idle
  chunks and syncs; a forked child starts its own.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from calyx_logging import durable
from calyx_logging.errors import ConfigError, StorageError
from calyx_logging.gap import Gap
from calyx_logging.locks import lock_file, os_lock
from calyx_logging.node import Node
from calyx_logging.writer import ChunkWriter, WriterOptions

__all__ = ["Recorder", "seal"]

_LOOK_SECONDS = 10.0
"""How often the upkeep thread looks whether an open chunk was deleted under its writer."""

_Encode = Callable[[Any], bytes | None]


class _Local(threading.local):
    """What a thread is doing in a recorder."""

    def __init__(self) -> None:
        self.busy = False
        self.deferred: deque[tuple[_Encode, Any]] = deque()


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
        self._writer: ChunkWriter | None = None
        self._lock = threading.Lock()
        self._local = _Local()
        self._probe()
        _recorders.add(self)

    def submit(self, encode: _Encode, item: Any) -> None:
        """Encode `item` (None drops it) and write the line; counted as lost when either fails. Never raises."""
        local = self._local
        if local.busy:
            local.deferred.append((encode, item))
            return
        local.busy = True
        try:
            self._write(encode, item)
        finally:
            local.busy = False
        if local.deferred:
            self._write_deferred(local)

    def seal(self) -> None:
        """Seal the open chunk, if there is one, so that the next export takes it."""
        with self._entered() as writer:
            if writer is not None:
                writer.seal()
                if writer.uprooted:
                    self._begin_anew(writer)

    def close(self) -> None:
        """End the writer; a later event begins a new one."""
        with self._entered() as writer:
            if writer is not None:
                self._writer = None
                writer.close()
                if writer.uprooted:
                    self._begin_anew(writer).close()
                    self._writer = None

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

    def _write(self, encode: _Encode, item: Any) -> None:
        try:
            line = encode(item)
        except Exception as error:  # said and counted in a gap line
            with self._lock:
                self._living_writer().lose(error)
            return
        if line is None:
            return
        with self._lock:
            writer = self._writer or self._living_writer()
            if writer.on_last_number:
                writer.roll_for(len(line))
                if writer.exhausted:
                    writer.close()
                    self._writer = None
                    writer = self._living_writer()
            if not writer.append(line) and writer.uprooted:
                writer = self._begin_anew(writer)
                if not writer.append(line) and writer.uprooted:
                    writer.uprooted = False
                    writer.lose(FileNotFoundError(2, "the outbox is gone", str(self._node.outbox)))

    def _write_deferred(self, local: _Local) -> None:
        while local.deferred:
            local.busy = True  # from here on a signal handler that logs adds to the queue and takes nothing from it
            try:
                while local.deferred:
                    self._write(*local.deferred.popleft())
            finally:
                local.busy = False

    def _living_writer(self, gaps: Iterable[Gap] = ()) -> ChunkWriter:
        if self._writer is None:
            self._writer = ChunkWriter(self._node.outbox, self._node.id, self._component, self._options, gaps=gaps)
            _begin_upkeep()
        return self._writer

    def _begin_anew(self, writer: ChunkWriter) -> ChunkWriter:
        """The folder was taken away under a writer: another begins where the folder should be, and tells of it."""
        self._writer = None
        return self._living_writer(writer.leave())

    @contextmanager
    def _entered(self) -> Iterator[ChunkWriter | None]:
        """Hold the recorder's lock; events logged meanwhile by this very thread are written after it is given back."""
        local = self._local
        if local.busy:  # sealing from inside a processor: the outer call holds the lock or will take it
            yield None
            return
        local.busy = True
        try:
            with self._lock:
                yield self._writer
        finally:
            local.busy = False
        if local.deferred:
            self._write_deferred(local)

    def _upkeep(self, now: float) -> float:
        """Roll an idle chunk, sync; the seconds until there may be something to do again."""
        with self._entered() as writer:
            if writer is not None:
                if writer.is_deleted():
                    writer.seal()
                writer.roll_if_old()
                if writer.uprooted:
                    writer = self._begin_anew(writer)
                if self._options.sync == "interval":
                    writer.sync_if_due()
        waits = [_LOOK_SECONDS]
        if self._options.max_age is not None:
            waits.append(max(self._options.max_age / 4, 0.05))
        if self._options.sync == "interval":
            waits.append(self._options.sync_interval)
        return min(waits)

    def _after_fork_in_child(self) -> None:
        writer, self._writer = self._writer, None
        self._lock = threading.Lock()
        self._local = _Local()
        if writer is not None:
            writer.abandon()


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


def _close_all() -> None:
    for recorder in list(_recorders):
        recorder.close()


def _begin_upkeep() -> None:
    global _upkeep_thread
    _close_at_end_of_multiprocessing_child()
    with _upkeep_lock:
        if _upkeep_thread is None or not _upkeep_thread.is_alive():
            thread = threading.Thread(target=_upkeep_forever, name="calyx-logging-upkeep", daemon=True)
            try:
                thread.start()
            except RuntimeError:
                return  # the interpreter is shutting down; what is open now is sealed at exit
            _upkeep_thread = thread
        else:
            _upkeep_wake.set()  # a shorter interval may have come


def _upkeep_forever() -> None:
    while True:
        wait = min((recorder._upkeep(time.monotonic()) for recorder in list(_recorders)), default=_LOOK_SECONDS)
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
