"""OsLock: an exclusive lock that the operating system holds for a process, and gives back when the process ends.

Invariants:

* `flock` on POSIX; on Windows the first byte of the file. The file gives the lock its name, and stays on release.
* No call waits for another thread, and an interrupt anywhere leaves nothing locked: there is no Python code around a
  lock here, as in `threading.Condition`. What an interrupted call had opened is closed with the object.
* A forked child closes its copy (`forget`) and never unlocks: the lock is still the parent's.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.errors import ConfigError

__all__ = ["Held", "OsLock", "has_no_locks", "without_locks"]

_FLAGS = os.O_RDWR | os.O_CREAT
for _flag in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _flag, 0)
_IS_HELD: tuple[int, ...] = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES, errno.EDEADLK)
_IS_HELD += (getattr(errno, "EDEADLOCK", errno.EDEADLK),)
if os.name == "nt":
    _IS_HELD += (0,)  # wine's msvcrt.locking sets none
_NO_LOCKS = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK)
_POLL_SECONDS = 0.05
_TRIES = 100


class Held(Exception):
    """Another process, or another object of this one, has the lock."""


class OsLock:
    """A lock on a file, which is made where there is none; one thread at a time uses the object.

    Args:
        path: the file. Its folder is made on `acquire`.

    Attributes:
        path: the file.
    """

    __slots__ = ("__weakref__", "_fds", "path")

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fds: list[Any] = [None]

    def acquire(self, *, blocking: bool = True) -> int:
        """Take the lock; return the file's descriptor, which stays this object's.

        Args:
            blocking: wait for it.

        Raises:
            Held: another one has it, and `blocking` is false.
            ConfigError: the file system has no locks.
            OSError: the file cannot be opened.
        """
        files.make_dirs(self.path.parent)
        waited = False
        while not self._try():
            if not blocking:
                raise Held(f"{self.path} is locked")
            if not waited and has_no_locks(self.path.parent):
                raise without_locks(self.path.parent)
            waited = True
            time.sleep(_POLL_SECONDS)
        return int(self._fds[1])

    def _try(self) -> bool:
        for _ in range(_TRIES):
            try:
                self._fds.extend(map(os.open, (self.path,), (_FLAGS,), (0o666,)))  # one step for the interpreter
            except PermissionError:
                if (
                    os.name == "nt"
                    and not self.path.is_dir()
                    and (os.access(self.path, os.W_OK) or not self.path.exists())
                ):
                    return False  # somebody is deleting it
                if os.name == "nt" or not os.access(self.path, os.R_OK):
                    raise
                read_only = (_FLAGS & ~(os.O_RDWR | os.O_CREAT)) | os.O_RDONLY  # another user's; flock asks for no more
                self._fds.extend(map(os.open, (self.path,), (read_only,)))
            try:
                if not _lock(self._fds[1]):
                    self.forget()
                    return False
                if self._has_its_name():
                    return True
            except OSError as error:
                self.forget()
                if error.errno in _NO_LOCKS:
                    raise without_locks(self.path.parent) from error
                raise
            self.forget()  # its last holder deleted the file meanwhile
        raise OSError(errno.EBUSY, "is deleted again and again", str(self.path))

    def _has_its_name(self) -> bool:
        if os.name == "nt":
            return True  # Windows deletes no open file
        try:
            return os.path.samestat(os.fstat(self._fds[1]), self.path.lstat())
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give the lock back, if it is held."""
        if len(self._fds) > 1:
            with contextlib.suppress(OSError):  # closing it does it, too, but for a child's copy
                _unlock(self._fds[1])
            self.forget()

    def cut(self, length: int) -> bool:
        """Drop what follows the first `length` bytes of the file, while the lock is held; False if that fails."""
        with contextlib.suppress(OSError, IndexError):
            os.ftruncate(self._fds[1], length)
            return True
        return False

    def write(self, offset: int, data: bytes) -> bool:
        """Write into the file while the lock is held; False if that fails."""
        with contextlib.suppress(OSError, IndexError):
            os.lseek(self._fds[1], offset, os.SEEK_SET)
            return os.write(self._fds[1], data) == len(data)
        return False

    def forget(self) -> None:
        """Close the descriptor without unlocking: in a forked child, the lock is still the parent's."""
        if len(self._fds) > 1:
            any(map(os.close, iter(self._fds.pop, None)))
            self._fds = [None]

    def __del__(self) -> None:
        with contextlib.suppress(OSError, AttributeError):
            self.forget()

    def __enter__(self) -> OsLock:
        """Take the lock, waiting for it."""
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


if sys.platform == "win32":
    import msvcrt

    def _lock(fd: int) -> bool:
        os.lseek(fd, 0, os.SEEK_SET)
        return _unless_held(msvcrt.locking, fd, msvcrt.LK_NBLCK, 1)

    def _unlock(fd: int) -> None:
        os.lseek(fd, 0, os.SEEK_SET)
        msvcrt.locking(fd, msvcrt.LK_UNLCK, 1)

else:
    try:
        import fcntl
    except ImportError:
        fcntl = None  # type: ignore[assignment]

    def _lock(fd: int) -> bool:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "this Python has no locks")
        return _unless_held(fcntl.flock, fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _unlock(fd: int) -> None:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _unless_held(lock: Callable[..., None], *args: int) -> bool:
    try:
        lock(*args)
    except OSError as error:
        if error.errno in _IS_HELD:
            return False
        raise
    return True


def has_no_locks(folder: Path) -> bool:
    """Tell whether not even a new file in the folder can be locked.

    Raises:
        OSError: no file can be created there.
    """
    path = folder / f".probe-{os.getpid()}-{secrets.token_hex(4)}"  # a name that recovery ignores
    lock = OsLock(path)
    try:
        lock.acquire(blocking=False)
    except (Held, ConfigError):  # nobody else knows this name, so the file system refuses
        with contextlib.suppress(OSError):
            files.remove(path)
        return True
    lock.release()
    files.remove(path)
    return False


def without_locks(folder: Path) -> ConfigError:
    """The error for a folder on a file system that has no locks."""
    return ConfigError("this file system has no locks", path=folder, hint="put the root on a local disk")
