"""The exporter's lock of an outbox, required to pack or delete anything in it; and the file that names its holder.

The holder's file is written after the lock is taken, and outlives a killed holder. So a process that finds the lock
held waits a moment, for a file that names a living process or for the lock.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calyx_logging.core import files, json_bytes
from calyx_logging.core.locks import is_gone
from calyx_logging.core.os_lock import Held, OsLock, has_no_locks, without_locks
from calyx_logging.core.times import utc_text
from calyx_logging.errors import CalyxError, LockHeld
from calyx_logging.node import Node

__all__ = ["exclusive"]

_LOCK, _HOLDER = ".export.lock", ".export.holder.json"
_POLL_SECONDS, _POLLS = 0.02, 100


@contextmanager
def exclusive(
    node: Node, clock: Callable[[], float] = time.time, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[None]:
    """Hold the exporter's lock of an outbox, required to seal dead writers' chunks, pack or delete.

    Raises:
        LockHeld: another process has it; the message says which.
        ConfigError: the file system has no locks.
        OSError: the lock file cannot be written.
    """
    files.make_dirs(node.outbox)
    lock = OsLock(node.outbox / _LOCK)
    holder = node.outbox / _HOLDER
    _acquire(lock, holder, sleep)
    try:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_text(clock())}
        try:
            files.replace_file(holder, json_bytes.dumps(who, option=json_bytes.OPT_APPEND_NEWLINE))
        except OSError as error:
            if not files.is_full(error):  # it only tells who has the lock
                raise
        yield
    finally:
        try:
            with suppress(OSError):  # it only tells who had the lock
                files.remove(holder)
        finally:
            lock.release()


def _acquire(lock: OsLock, holder: Path, sleep: Callable[[float], None]) -> None:
    who = None
    for _ in range(_POLLS):
        try:
            lock.acquire(blocking=False)
            return
        except Held:
            if has_no_locks(holder.parent):
                raise without_locks(holder.parent) from None
        if (who := _described(holder)) is not None:
            break
        sleep(_POLL_SECONDS)
    raise LockHeld(
        f"another export is running: {who or 'its process is unknown'}",
        path=holder.parent,
        hint="wait until it has ended, then run this again",
    )


def _described(holder: Path) -> str | None:
    """Describe the process that the holder's file names; None if there is no such file, or the process has ended."""
    try:
        who = json_bytes.loads(files.read_regular(holder))
        gone = is_gone(f"{who['pid']} {who['host']}")
        return None if gone else f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, CalyxError, ValueError, KeyError, TypeError):
        return None
