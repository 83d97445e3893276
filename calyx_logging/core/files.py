"""The door to the disk: the only module that writes, syncs, renames or deletes.

Guarantees to callers:

* `AppendFile.append` puts the whole of its bytes at the end of the file or none of them: what a failing disk took in
  part is cut back. `AppendFile.write` leaves that to its caller. A descriptor is closed exactly once.
* `replace_file` and `publish` never show a half-written file or folder under its final name: everything is written and
  synced beside the target first, then renamed, then the directory is synced.
* Nothing blocks on a pipe that stands where a file is expected.
* `reachable` gives a path the form that Windows accepts at any length.
* On Windows, where a virus scanner or an indexer holds files for a moment, renames and deletions are tried again for at
  most 31 ms. Nothing else here ever sleeps.

Every function raises `OSError`; callers explain what the failure means to the user.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

__all__ = [
    "AppendFile",
    "extended",
    "is_full",
    "make_dirs",
    "publish",
    "reachable",
    "read_regular",
    "remove",
    "remove_tree",
    "rename_new",
    "rename_over",
    "replace_file",
    "sync_dir",
    "sync_file",
    "write_file",
    "write_new",
]

_WINDOWS = sys.platform == "win32"
_NEW = os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
WINDOWS_RETRY_DELAYS = (0.001, 0.002, 0.004, 0.008, 0.016)
_RETRY_DELAYS = WINDOWS_RETRY_DELAYS if _WINDOWS else ()
_BLOCK = 1024 * 1024
_T = TypeVar("_T")


class AppendFile:
    """A new file, open for appending by this process alone.

    Its descriptor is opened once and closed once, whatever interrupts the program: opening and noting it, and taking
    and closing it, are one step each for the interpreter, which runs signal handlers between steps only.

    Args:
        path: where to create it.

    Raises:
        FileExistsError: something has that name.
        OSError: it cannot be created.

    Attributes:
        path: where it was created.
        identity: device and inode, to know it again by.
    """

    __slots__ = ("_fds", "fd", "identity", "path")

    def __init__(self, path: Path) -> None:
        self.fd = -1
        self.path = path
        self._fds: list[Any] = [None]
        self._fds.extend(map(os.open, (path,), (_NEW | os.O_RDWR | os.O_APPEND,), (0o666,)))
        self.fd = self._fds[1]
        self.identity = _identity(os.fstat(self.fd))

    def write(self, data: bytes) -> int:
        """Put bytes at the end in one system call, as many as the disk takes; return how many."""
        return os.write(self.fd, data)

    def append(self, data: bytes) -> None:
        """Put all of `data` at the end, or nothing; where a part cannot be cut off again, `length` tells."""
        written = self.write(data)
        if written == len(data):
            return
        rest = memoryview(data)
        try:
            while written < len(data):
                written += os.write(self.fd, rest[written:])
        except BaseException:
            with contextlib.suppress(OSError):
                self.cut(self.length() - written)
            raise

    def length(self) -> int:
        """Bytes in the file, as the system says."""
        return os.fstat(self.fd).st_size

    def cut(self, length: int) -> None:
        """Drop what follows the first `length` bytes."""
        os.ftruncate(self.fd, length)

    def read(self, start: int = 0) -> bytes:
        """Everything from byte `start` on."""
        os.lseek(self.fd, start, os.SEEK_SET)
        blocks = []
        while block := os.read(self.fd, _BLOCK):
            blocks.append(block)
        return b"".join(blocks)

    def is_at(self, path: Path) -> bool:
        """Whether this very file is what `path` names, and not a copy or another."""
        try:
            found = os.stat(path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return _WINDOWS or _identity(found) == self.identity  # Windows replaces no open file

    def sync(self) -> None:
        """Return once the bytes are on the medium, as far as the system can tell."""
        _sync_fd(self.fd)

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self.fd < 0

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        self.fd = -1
        if len(self._fds) > 1:
            any(map(os.close, iter(self._fds.pop, None)))

    def __del__(self) -> None:
        # an interrupt may have come before there was anything, or the interpreter has emptied this module
        try:  # noqa: SIM105
            self.close()
        except (OSError, AttributeError, TypeError):
            pass


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _sync_fd(fd: int) -> None:
    if sys.platform == "darwin":
        # fsync(2) on macOS leaves the bytes in the drive's cache; F_FULLFSYNC does not, where it is supported.
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def reachable(path: Path, room: int = 200) -> Path:
    """Return `path` as an absolute path; on Windows in extended form if names below it may exceed 259 characters.

    Args:
        path: the folder.
        room: characters to allow for names below it.
    """
    if not _WINDOWS:
        return path.absolute()
    return Path(extended(os.path.abspath(path), room))


def extended(path: str, room: int) -> str:
    """Return an absolute Windows path, in the extended form (up to 32,767 characters) where it needs one."""
    if len(path) + room < 260 or path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC\\" + path[2:]
    return "\\\\?\\" + path


def read_regular(path: Path) -> bytes:
    """Read a regular file; a pipe or a folder is an error, and the call never waits for a writer.

    Raises:
        OSError: the file is missing, is not a regular file, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with os.fdopen(fd, "rb") as stream:
        return stream.read()


def sync_dir(path: Path) -> None:
    """Make renames, creations and deletions in a directory durable; Windows does not need it."""
    if _WINDOWS:
        return
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path) -> None:
    """Create a directory and its missing parents, and sync each one into its parent."""
    if path.is_dir():
        return
    if path.parent != path:
        make_dirs(path.parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        if not path.is_dir():
            raise
    else:
        sync_dir(path.parent)


def write_new(path: Path, data: Iterable[bytes], *, sync: bool = True) -> None:
    """Write and sync a new file; if that fails, remove it again."""
    fd = os.open(path, _NEW | os.O_WRONLY, 0o666)
    try:
        try:
            for part in data:
                view = memoryview(part)
                while view:
                    view = view[os.write(fd, view) :]
            if sync:
                _sync_fd(fd)
        finally:
            os.close(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def replace_file(path: Path, data: bytes) -> None:
    """Put `data` at `path` atomically: readers and crashes see the old bytes or the new ones."""
    temporary = path.with_name(f".{path.name}.tmp")
    remove(temporary)
    write_new(temporary, [data])
    rename_over(temporary, path)


def write_file(path: Path, write: Callable[[BinaryIO], None], *, sync: bool = True) -> None:
    """Replace a file by one that `write` fills, and sync it; if that fails, remove it."""
    remove(path)
    fd = os.open(path, _NEW | os.O_RDWR, 0o666)
    try:
        with os.fdopen(fd, "w+b") as stream:
            write(stream)
            stream.flush()
            if sync:
                _sync_fd(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def sync_file(path: Path) -> None:
    """Sync a file that other code has written."""
    fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _sync_fd(fd)
    finally:
        os.close(fd)


def is_full(error: OSError) -> bool:
    """Tell whether a disk, or the user's part of it, had no room."""
    return error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", None))


def rename_over(source: Path, target: Path, *, sync: bool = True) -> None:
    """Rename a file, replacing the target if it exists, and sync the directory; the file has to be synced before.

    Args:
        source: the file.
        target: its new name.
        sync: false for what can be made again, and need not outlast a loss of power.
    """
    _with_retries(lambda: os.replace(source, target))
    if sync:
        sync_dir(target.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename to a name that must not be taken.

    Raises:
        FileExistsError: the name is taken.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the name is taken", str(target))
    _with_retries(lambda: os.rename(source, target))


def publish(staging: Path, target: Path) -> None:
    """Give a finished folder its final name: sync it, rename it, then sync the directories on both sides."""
    sync_dir(staging)
    rename_new(staging, target)
    sync_dir(target.parent)
    if staging.parent != target.parent:
        sync_dir(staging.parent)


def remove(path: Path) -> None:
    """Delete a file; does nothing if it does not exist."""
    with contextlib.suppress(FileNotFoundError):
        _with_retries(lambda: os.unlink(path))


def remove_tree(path: Path) -> None:
    """Delete a folder and its contents; does nothing if it does not exist."""
    if os.path.islink(path) or not os.path.isdir(path):
        remove(path)
        return
    for name in os.listdir(path):
        remove_tree(path / name)
    _with_retries(lambda: os.rmdir(path))


def _with_retries(operation: Callable[[], _T]) -> _T:
    for delay in _RETRY_DELAYS:
        try:
            return operation()
        except PermissionError:
            time.sleep(delay)
    return operation()
