"""The exporter's lock of an outbox, required to pack or delete anything in it."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from calyx_logging.core import files
from calyx_logging.core.os_lock import Held, OsLock, has_no_locks, without_locks
from calyx_logging.core.times import utc_text
from calyx_logging.errors import CalyxError, LockHeld
from calyx_logging.node import Node

__all__ = ["exclusive"]

_LOCK, _HOLDER = ".export.lock", ".export.holder.json"


@contextmanager
def exclusive(node: Node, clock: Callable[[], float] = time.time) -> Iterator[None]:
    """Hold the exporter's lock of an outbox, required to seal dead writers' chunks, pack or delete.

    Raises:
        LockHeld: another process has it; the message says which.
        ConfigError: the file system has no locks.
        OSError: the lock file cannot be written.
    """
    files.make_dirs(node.outbox)
    lock = OsLock(node.outbox / _LOCK)
    holder = node.outbox / _HOLDER
    try:
        lock.acquire(blocking=False)
    except Held:
        if has_no_locks(node.outbox):
            raise without_locks(node.outbox) from None
        raise LockHeld(
            f"another export is running: {_describe(holder)}",
            path=node.outbox,
            hint="wait until it has ended, then run this again",
        ) from None
    try:
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": utc_text(clock())}
        files.replace_file(holder, orjson.dumps(who, option=orjson.OPT_APPEND_NEWLINE))
        yield
        files.remove(holder)
    finally:
        lock.release()


def _describe(holder: Path) -> str:
    try:
        who = orjson.loads(holder.read_bytes())
        return f"process {who['pid']} on {who['host']} since {who['since']}"
    except (OSError, CalyxError, ValueError, KeyError, TypeError):
        return "its process is unknown"
