"""ExecutionLogHandler: the one file of a run that many processes append their events to.

Invariants: each event is one line, written in one piece under concurrent-log-handler's lock between processes; a line
that a process left unfinished when it died stays a line of its own and harms no other; the file is never rotated.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import portalocker
from concurrent_log_handler import ConcurrentRotatingFileHandler

from calyx_logging.core import files
from calyx_logging.core.validation import refuse_unknown
from calyx_logging.errors import ConfigError, StorageError, say
from calyx_logging.events.context import RUN_INSTANCE, bound_context
from calyx_logging.events.event import DEFAULT_MAX_EVENT_BYTES, DEFAULT_SOURCE, control_event
from calyx_logging.events.stamp import take
from calyx_logging.format.run_paths import execution_log, root_above
from calyx_logging.handlers.base import EventHandler, check_root
from calyx_logging.node import Node

__all__ = ["ExecutionLogFile", "ExecutionLogHandler"]

_LOCK_SECONDS = 10.0
_ERROR_SECONDS = 1.0
_POLL_SECONDS = 0.0005
_MAX_DEPTH = 8
_OPTIONS = (
    *("run_id", "run_instance_id", "filename", "root", "source", "sync", "max_event_bytes", "maxBytes"),
    *("level", "formatter", "filters"),
)


class ExecutionLogFile(ConcurrentRotatingFileHandler):
    """A file that many processes append lines to: concurrent-log-handler's locks around one write.

    Args:
        path: its name; the folder is made where it is missing.
        gap: the line that says how many could not be kept, and why; for when writing works again.

    Raises:
        StorageError: its folder cannot be made, or the file cannot be written.

    Attributes:
        lost: lines that could not be written, in all.
    """

    def __init__(self, path: Path, gap: Callable[[int, str], bytes]) -> None:
        try:
            files.make_dirs(path.parent)
            if path.exists() and stat.S_ISFIFO(path.stat().st_mode):
                raise OSError(errno.EINVAL, "it is a pipe")
            with path.open("ab"):
                pass
        except OSError as error:
            raise StorageError.of(error, "write the execution log", path, "give a file that can be written") from error
        except ValueError as error:
            raise ConfigError(f"the execution log {str(path)!r} is no path: {error}") from error
        self.lost = 0
        self._untold = 0
        self._cause = ""
        self._gap = gap
        super().__init__(str(path), maxBytes=0, encoding="utf-8", newline="")
        self.maxLockAttempts = 1  # each with a limit of its own

    def _lock_stream_lock(self, stream_lock: Any) -> None:
        """Wait for other processes, but not for one that was stopped in the middle: no call waits without limit."""
        began = time.monotonic()
        while True:
            try:
                portalocker.lock(stream_lock, portalocker.LOCK_EX | portalocker.LOCK_NB)
                return
            except portalocker.AlreadyLocked:
                limit = _LOCK_SECONDS
            except portalocker.LockException:  # an error, or a system's own way to say that it is locked
                limit = _ERROR_SECONDS
            if time.monotonic() - began >= limit:
                raise TimeoutError(f"its lock could not be had in {limit} s")
            time.sleep(_POLL_SECONDS)

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self.lost = self._untold = 0  # the parent's, which tells of them

    def close(self) -> None:
        """Close the file; what is missing in it is said, if nothing could be written since."""
        if self._untold:
            say(f"{self._untold} events are missing in {self.baseFilename}: {self._cause}")
        super().close()

    def keep(self, line: bytes, *, sync: bool = False) -> bool:
        """Write one line (without newline), on the medium when it returns if `sync`; False when it could not be."""
        self.acquire()
        try:
            self._write_locked(line, sync)
        except Exception as error:
            self.lose(error)
            return False
        finally:
            self.release()
        return True

    def lose(self, error: Exception) -> None:
        """Count a line that cannot be written; the first of a series is said."""
        self.lost += 1
        self._untold += 1
        self._cause = f"{type(error).__name__}: {error}"
        if self._untold == 1:
            say(f"writing to {self.baseFilename} fails: {error}; its events are counted, and it is tried again")

    def _write_locked(self, line: bytes, sync: bool) -> None:
        try:
            self._do_lock()
            self._check_stream()
            if self.stream is None or self.stream.closed:
                self.stream = self.do_open()
            gap = self._gap(self._untold, self._cause) + b"\n" if self._untold else b""
            _append(self.stream, gap + line + b"\n", sync)
            if self._untold:
                say(f"writing to {self.baseFilename} works again; {self._untold} events are missing there")
                self._untold = 0
            if not self._actual_keep_log_stream_open:
                self._close()
        finally:
            self._do_unlock()

    def do_open(self, mode: str | None = None) -> Any:
        """The file, unbuffered, at its end."""
        return open(self.baseFilename, "a+b", buffering=0)  # noqa: PTH123 - as the base does it


def _append(stream: Any, data: bytes, sync: bool) -> None:
    """All of it or nothing; what a dead process left unfinished is ended first."""
    size = stream.seek(0, os.SEEK_END)
    if size:
        stream.seek(-1, os.SEEK_END)
        if stream.read(1) != b"\n":
            data = b"\n" + data
    written = stream.write(data)
    if written != len(data):
        stream.truncate(size)
        raise OSError(errno.ENOSPC, "the disk took a part of a line")
    if sync:
        os.fsync(stream.fileno())


class ExecutionLogHandler(EventHandler, ExecutionLogFile):
    """Writes each record as an event line into a run's execution log, the same line as the outbox but for `seq`.

    With an `OutboxHandler` on the same logger each event is in both, with one `event_id` and one `ts_utc`. Never raises
    after it is configured: what cannot be written is counted, said once on standard error, and named in a gap line when
    writing works again.

    Args:
        run_id: what is run.
        run_instance_id: this time; the same in all processes of the run. Default for both: the run that
            `benchmark_run` has begun in this process or in the one that started it.
        filename: the file, instead of the two; the root is then looked for above it.
        root: the folder with `runtime/node_id.txt`; default as in `OutboxHandler`.
        source: the events' `source`.
        sync: whether a line is on the medium when the call returns.
        max_event_bytes: bytes of one line.
        maxBytes: 0, or an error: rotation renames and deletes, and this file is evidence.
        level: as in every handler.

    Raises:
        ConfigError: an option is unknown or bad.
        NodeError: the root has no usable node id.
        StorageError: the file cannot be written.
    """

    def __init__(
        self,
        run_id: str | None = None,
        run_instance_id: str | None = None,
        filename: str | os.PathLike[str] | None = None,
        root: str | os.PathLike[str] | None = None,
        source: str = DEFAULT_SOURCE,
        sync: bool = False,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        maxBytes: int = 0,  # noqa: N803 - concurrent-log-handler's name
        level: int | str = logging.NOTSET,
        **unknown: Any,
    ) -> None:
        refuse_unknown("ExecutionLogHandler", _OPTIONS, unknown)
        if maxBytes != 0 or isinstance(maxBytes, bool):
            raise ConfigError(
                f"option 'maxBytes' is {maxBytes!r}: an execution log is never rotated",
                hint="leave it out; rotation renames and deletes files",
            )
        if not isinstance(sync, bool):
            raise ConfigError(f"option 'sync' is {sync!r}: give true or false")
        check_root(root)
        if filename is None:
            node = Node.find(root)
            path = _path_of(node, run_id, run_instance_id)
        elif run_id is not None or run_instance_id is not None:
            raise ConfigError("option 'filename' stands beside 'run_id': give the file, or the run's ids")
        else:
            path = Path(filename).expanduser().absolute()
            node = Node.find(root if root is not None else root_above(path))
        self.prepare(node, source, max_event_bytes)
        self._sync = sync
        self._local = threading.local()
        self._is_diverted = False
        ExecutionLogFile.__init__(self, path, self._gap_line)
        self.setLevel(level)

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record; one that this handler took before (through another logger) is ignored."""
        depth = getattr(self._local, "depth", 0)
        if self._is_diverted or not take(record, self._token):
            return
        self._local.depth = depth + 1
        try:
            if depth >= _MAX_DEPTH:
                raise RecursionError(f"logged from inside logging, {_MAX_DEPTH} calls deep")
            line = self._event_formatter.encode(record)
        except Exception as error:
            self.lose(error)
            return
        finally:
            self._local.depth = depth
        if line is not None:
            self.keep(line, sync=self._sync)

    def divert(self, node: Node | None) -> None:
        """Write nothing (for `calyx-telemetry doctor`, whose canaries are no part of a run); None ends that."""
        self._is_diverted = node is not None

    def _gap_line(self, count: int, cause: str) -> bytes:
        message = f"{count} events could not be kept"
        return control_event(self._stamp.node_id, "gap", time.time(), message, count=count, cause=cause)


def _path_of(node: Node, run_id: str | None, run_instance_id: str | None) -> Path:
    if run_id is None and run_instance_id is None:
        run = bound_context()
        run_id, run_instance_id = run.get("run_id"), run.get(RUN_INSTANCE)
    if run_id is None or run_instance_id is None:
        raise ConfigError(
            "ExecutionLogHandler does not know its run",
            hint="give the options run_id and run_instance_id, or filename, or configure it inside benchmark_run",
        )
    return execution_log(node.root, run_id, run_instance_id)
