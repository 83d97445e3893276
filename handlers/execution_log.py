"""ExecutionLogHandler: one file per run, to which many processes append their events.

Invariants: each event is one line, written in one piece under concurrent-log-handler's lock between processes; a
partial line left by a process that died stays a line of its own and harms no other; the file is never rotated.
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
    """A file to which many processes append lines, each in one write under concurrent-log-handler's lock.

    Args:
        path: the file; its folder is created if missing.
        gap: makes the line that says how many events were lost, and why; written once writing works again.

    Raises:
        StorageError: the folder cannot be created, or the file cannot be written.

    Attributes:
        lost: lines that could not be written so far.
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
            raise ConfigError(f"the execution log {str(path)!r} is not a path: {error}") from error
        self.lost = 0
        self._untold = 0
        self._cause = ""
        self._gap = gap
        super().__init__(str(path), maxBytes=0, encoding="utf-8", newline="")
        self.maxLockAttempts = 1  # each attempt has its own time limit

    def _lock_stream_lock(self, stream_lock: Any) -> None:
        """Wait for the lock, with a time limit in case a process was stopped while it held it."""
        began = time.monotonic()
        while True:
            try:
                portalocker.lock(stream_lock, portalocker.LOCK_EX | portalocker.LOCK_NB)
                return
            except portalocker.AlreadyLocked:
                limit = _LOCK_SECONDS
            except portalocker.LockException:  # an error, or how some systems say that it is locked
                limit = _ERROR_SECONDS
            if time.monotonic() - began >= limit:
                raise TimeoutError(f"its lock was not free within {limit} s")
            time.sleep(_POLL_SECONDS)

    def _at_fork_reinit(self) -> None:
        super()._at_fork_reinit()
        self.lost = self._untold = 0  # the parent reports its own losses

    def close(self) -> None:
        """Close the file; report lost events on standard error if no line could record them."""
        if self._untold:
            say(f"{self._untold} events are missing in {self.baseFilename}: {self._cause}")
        super().close()

    def keep(self, line: bytes, *, sync: bool = False) -> bool:
        """Write one line (given without newline), and sync it if `sync`; return False if that failed."""
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
        """Count a line that could not be written; report the first of a series on standard error."""
        self.lost += 1
        self._untold += 1
        self._cause = f"{type(error).__name__}: {error}"
        if self._untold == 1:
            say(f"writing to {self.baseFilename} fails: {error}; lost events are counted, and writing is retried")

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
        """Open the file unbuffered, at its end."""
        return open(self.baseFilename, "a+b", buffering=0)  # noqa: PTH123 - as the base does it


def _append(stream: Any, data: bytes, sync: bool) -> None:
    """Append all of `data` or nothing, and first end a partial line that a dead process left."""
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
    """Writes each record as an event line to a run's execution log; the line is the outbox's, without `seq`.

    With an `OutboxHandler` on the same logger each event is in both, with one `event_id` and one `ts_utc`. Once
    configured it never raises: lost events are counted, reported once on standard error, and recorded in a gap line
    when writing works again.

    Args:
        run_id: the run's configuration.
        run_instance_id: this execution of it; the same in all processes of the run. Default for both: the run that
            `benchmark_run` has begun in this process or in the one that started it.
        filename: the file, instead of the two ids; the root is then searched for above it.
        root: the folder with `runtime/node_id.txt`; default as in `OutboxHandler`.
        source: the events' `source`.
        sync: whether to sync each line before the call returns.
        max_event_bytes: the largest line, in bytes.
        maxBytes: must be 0, because rotation renames and deletes files, and this file is evidence.
        level: the least level to write, as in every handler.

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
            raise ConfigError("options 'filename' and 'run_id' exclude each other: give the file, or the run's ids")
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
        """Write the record; ignore it if this handler already has it from another logger."""
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
        """Stop writing while `calyx-telemetry doctor` sends its canaries, which are not part of a run; None resumes."""
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
