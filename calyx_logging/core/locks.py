"""Locks: which process is alive, and who it is.

Invariant: a lock is the operating system's alone; its file is only its name, and says who holds it.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from calyx_logging.core import files
from calyx_logging.errors import ConfigError, StorageError

__all__ = ["OsLock", "WriterLock", "holder_of", "is_gone", "lock_file", "os_lock", "probe"]

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
    files.make_dirs(path.parent)
    return OsLock(path, thread_local=False, fallback_to_soft=False, preserve_lock_file=True, on_acquired=on_acquired)


def probe(outbox: Path) -> None:
    """Find out now, when a writer is configured, what would fail at its first event.

    Raises:
        ConfigError: the outbox cannot be written, or its file system has no locks.
    """
    path = lock_file(outbox, f"probe-{os.getpid()}-{threading.get_ident()}")
    try:
        with os_lock(path):
            pass
        files.remove(path)
    except NotImplementedError as error:
        raise ConfigError("this file system has no locks", path=outbox, hint="put the root on a local disk") from error
    except OSError as error:
        storage = StorageError.of(error, "write to the outbox", outbox)
        raise ConfigError(
            storage.message, path=outbox, hint="make the folder writable, or name another root"
        ) from error


class WriterLock:
    """A living writer's lock. Its file holds blanks that can be given up, so that a full disk has room again.

    One space, process id and host (Windows locks the first byte against readers), then 8 KiB of blanks.

    Attributes:
        writer: the writer's id, 8 hexadecimal digits; settled once the lock is held.
    """

    def __init__(self, outbox: Path) -> None:
        self.writer = secrets.token_hex(4)
        self._outbox = outbox
        self._lock: OsLock | None = None
        self._reserve: int | None = None
        self._named = b""

    def take(self) -> None:
        """Take the lock, unless it is held.

        Raises:
            FileNotFoundError: the root is gone.
            OSError: there can be no lock.
        """
        if self._lock is not None:
            return
        root = self._outbox.parents[2]
        if not root.is_dir():  # a root that was deleted is not made again
            raise FileNotFoundError(errno.ENOENT, "the root is gone", str(root))
        while True:
            lock = os_lock(lock_file(self._outbox, self.writer), on_acquired=self._fill)
            try:
                lock.acquire(blocking=False)
                break
            except Timeout:  # another writer drew the same eight digits
                self.writer = secrets.token_hex(4)
            except NotImplementedError as error:
                raise OSError(str(error)) from error
        # before the first chunk, so that no loss of power leaves a chunk whose writer seems never to have been
        files.sync_dir(self._outbox / ".writers")
        self._lock = lock

    def give_back(self, *, delete: bool) -> None:
        """Let others have the lock, if it is held; its file stays unless nothing of the writer is left to recover."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release(force=True)
            if delete:
                files.remove(lock_file(self._outbox, self.writer))

    def forget(self) -> None:
        """In a forked child: filelock has closed the child's copy, and only the parent may unlock."""
        self._lock = None

    def free_room(self) -> bool:
        """Give up the blanks; False when there are none."""
        fd, self._reserve = self._reserve, None
        if fd is None:
            return False
        with contextlib.suppress(OSError):
            os.ftruncate(fd, len(self._named))
            return True
        return False

    def _fill(self, fd: int) -> None:
        self._named = f" {os.getpid()} {socket.gethostname()}\n".encode()
        with contextlib.suppress(OSError):  # on a full disk the lock holds all the same, only without reserve
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, self._named)
            os.write(fd, b" " * _RESERVE_BYTES)
            self._reserve = fd


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
