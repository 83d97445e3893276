"""Locks: which process is alive, and who it is.

Invariant: a lock is the operating system's alone; its file is only its name, and says who holds it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from calyx_logging import durable

__all__ = ["LockText", "OsLock", "holder_of", "is_gone", "lock_file", "os_lock"]

_RESERVE_BYTES = 8192


def lock_file(outbox: Path, writer: str) -> Path:
    """The file that is locked while a writer lives."""
    return outbox / ".writers" / f"{writer}.lock"


class OsLock(FileLock):
    """A filelock that does not log.

    It is taken and given back while the recorder's own lock is held. A thread that configures logging meanwhile holds
    logging's lock and waits for the recorder's to close the old handler: were filelock to ask logging whether it may
    log, neither would ever end.
    """

    def acquire(self, *args: Any, **kwargs: Any) -> Any:
        """As in filelock."""
        try:
            with _quiet:
                return super().acquire(*args, **kwargs)
        except BaseExceptionGroup as group:  # Ctrl-C in the middle of it comes in a group
            interrupts = group.subgroup(KeyboardInterrupt)
            if interrupts is not None:
                raise KeyboardInterrupt from group
            raise

    def release(self, force: bool = False) -> None:
        """As in filelock."""
        with _quiet:
            super().release(force=force)


class _Quiet:
    """Keeps filelock's logger disabled while any thread is in here."""

    def __init__(self) -> None:
        self._logger = logging.getLogger("filelock")
        self._lock = threading.RLock()
        self._inside = 0
        self._before = False

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._before = self._logger.disabled
            self._inside += 1
            self._logger.disabled = True

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._logger.disabled = self._before

    def after_fork_in_child(self) -> None:
        """Another thread of the parent may have been in here."""
        self._lock = threading.RLock()
        if self._inside:
            self._inside, self._logger.disabled = 0, self._before


_quiet = _Quiet()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_quiet.after_fork_in_child)


def os_lock(path: Path, *, on_acquired: Callable[[int], None] | None = None) -> OsLock:
    """A lock by the operating system alone, one for all threads, whose file is kept on release."""
    durable.make_dirs(path.parent)
    return OsLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True, on_acquired=on_acquired)


class LockText:
    """The text of a lock file: who holds it, and blanks that can be given up so that a full disk has room again.

    One space, process id and host (Windows locks the first byte against readers), then 8 KiB of blanks.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._named = b""

    def fill(self, fd: int) -> None:
        """Called by the lock with its descriptor once it is held."""
        self._named = f" {os.getpid()} {socket.gethostname()}\n".encode()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only without reserve
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, self._named)
            os.write(fd, b" " * _RESERVE_BYTES)
            self._fd = fd

    def give_up(self) -> bool:
        """Free the blanks; False when there are none."""
        fd, self._fd = self._fd, None
        if fd is None:
            return False
        with contextlib.suppress(OSError):
            os.ftruncate(fd, len(self._named))
            return True
        return False


def is_gone(holder: str | None) -> bool:
    """Whether the process that a lock file names is known to have ended: asked of this host's system, POSIX only."""
    pid, _, host = (holder or "").partition(" ")
    if os.name != "posix" or host != socket.gethostname() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False  # it is there, and another user's
    return False


def holder_of(outbox: Path, writer: str) -> str | None:
    """Process id and host in a writer's lock file; None without one."""
    try:
        with lock_file(outbox, writer).open("rb", buffering=0) as stream:
            stream.seek(1)  # Windows locks the first byte against readers
            return stream.read(300).decode("utf-8", "replace").strip() or "unknown"
    except FileNotFoundError:
        return None
    except OSError:
        return "unknown"
