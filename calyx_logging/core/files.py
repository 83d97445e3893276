"""The door to the disk: the only module that writes, syncs, renames or deletes.

What it promises to its callers:

* `AppendFile.append` puts the whole of its bytes at the end of the file or none of them; what a failing disk took in
  part is cut back, and where even that fails the file says so (`torn`). `AppendFile.write` leaves that to its caller.
* `replace_file` and `publish` never show a half-written file or folder under its final name: everything is written and
  synced beside the target first, then renamed, then the directory is synced.
* Nothing waits for the other end of a pipe that bears a file's name.
* `reachable` gives a path the form in which Windows takes it however long it is.
* On Windows, where a virus scanner or an indexer holds files for a moment, renames and deletions are tried again
  for at most 31 ms. Nothing else here ever sleeps.

Every function raises `OSError`; callers say in their own words what that meant.
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
from typing import BinaryIO, TypeVar

__all__ = [
    "AppendFile",
    "extended",
    "make_dirs",
    "publish",
    "reachable",
    "read_regular",
    "remove",
    "remove_tree",
    "rename_new",
    "rename_over",
    "replace_file",
    "sync_and_close",
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

    Attributes:
        path: where it was created.
        size: bytes in it, as far as is known here.
        torn: True when a failed write left bytes behind that could not be cut back; nothing may follow them.
        synced: bytes that the last sync covered.
    """

    __slots__ = ("_fd", "path", "size", "synced", "torn")

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, _NEW | os.O_RDWR | os.O_APPEND, 0o666)
        self.path = path
        self.size = self.synced = 0
        self.torn = False

    def write(self, data: bytes) -> int:
        """One system call: puts bytes at the end, as many as the disk takes, and returns how many.

        Several threads may call it at once; its caller keeps `size` right.
        """
        return os.write(self._fd, data)

    def append(self, data: bytes) -> None:
        """Put all of `data` at the end, or nothing; one system call where the disk allows; never beside `write`."""
        written = os.write(self._fd, data)
        if written != len(data):
            self._append_rest(memoryview(data), written)
        self.size += len(data)

    def _append_rest(self, data: memoryview, written: int) -> None:
        try:
            while written < len(data):
                written += os.write(self._fd, data[written:])
        except BaseException:
            try:
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - written)
            except OSError:
                self.torn = True
            raise

    def duplicate(self) -> int:
        """Another descriptor of the file, to be synced by `sync_and_close` while appending goes on."""
        fd = os.dup(self._fd)
        self.synced = self.size
        return fd

    def has_grown(self) -> bool:
        """Whether the file is longer than is known here (a call was interrupted after its write); known then."""
        try:
            size = os.fstat(self._fd).st_size
        except OSError:
            return False
        grown, self.size = size != self.size, size
        return grown

    def contains(self, marker: bytes) -> bool:
        """Whether these bytes are in the file."""
        os.lseek(self._fd, 0, os.SEEK_SET)
        rest = b""
        while block := os.read(self._fd, _BLOCK):
            if marker in rest + block:
                return True
            rest = block[-len(marker) :]
        return False

    def ends_with(self, tail: bytes) -> bool:
        """Whether these are the last bytes of the file."""
        start = os.fstat(self._fd).st_size - len(tail)
        if start < 0:
            return False
        os.lseek(self._fd, start, os.SEEK_SET)
        return os.read(self._fd, len(tail)) == tail

    def cut_back(self, fragment: bytes) -> None:
        """Cut off the fragment that a failed `write` left at the end; where it is not the end, the file is `torn`."""
        try:
            if self.ends_with(fragment):
                os.ftruncate(self._fd, os.fstat(self._fd).st_size - len(fragment))
                return
        except OSError:
            pass  # it stays, and is said to
        self.torn = True

    def is_whole(self) -> bool:
        """Whether the file ends with a newline, or has no bytes; else it is `torn` from now on."""
        try:
            self.torn = self.torn or not (self.is_empty() or self.ends_with(b"\n"))
        except OSError:
            self.torn = True
        return not self.torn

    def is_empty(self) -> bool:
        """Whether the file has no bytes."""
        return os.fstat(self._fd).st_size == 0

    def is_deleted(self) -> bool:
        """Whether the file has no name any more."""
        return os.fstat(self._fd).st_nlink == 0

    def sync(self) -> None:
        """Return once the bytes are on the medium, as far as the system can tell."""
        size = self.size
        _sync_fd(self._fd)
        self.synced = size

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Give the descriptor back; a second call does nothing."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


def _sync_fd(fd: int) -> None:
    if sys.platform == "darwin":
        # fsync(2) on macOS leaves the bytes in the drive's cache; F_FULLFSYNC does not, where it is supported.
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
            return
    os.fsync(fd)


def sync_and_close(fd: int) -> None:
    """Sync a descriptor that `AppendFile.duplicate` gave, and close it."""
    try:
        _sync_fd(fd)
    finally:
        os.close(fd)


def reachable(path: Path, room: int = 200) -> Path:
    """The same place as an absolute path; on Windows, where names below it may pass 259 characters, in extended form.

    Args:
        path: of a folder.
        room: characters that what is below it may need.
    """
    if not _WINDOWS:
        return path.absolute()
    return Path(extended(os.path.abspath(path), room))


def extended(path: str, room: int) -> str:
    """An absolute Windows path, where needed in the extended form that may have up to 32,767 characters."""
    if len(path) + room < 260 or path.startswith(("\\\\?\\", "\\\\.\\")):
        return path
    if path.startswith("\\\\"):
        return "\\\\?\\UNC\\" + path[2:]
    return "\\\\?\\" + path


def read_regular(path: Path) -> bytes:
    """The bytes of a regular file; a pipe or a folder of that name is an error, and nothing waits for a writer.

    Raises:
        OSError: it is not there, no regular file, or cannot be read.
    """
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    fd = os.open(path, flags)
    with os.fdopen(fd, "rb") as stream:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        return stream.read()


def sync_dir(path: Path) -> None:
    """Make renames, creations and deletions in a directory last; Windows has no such call and needs none."""
    if _WINDOWS:
        return
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_dirs(path: Path) -> None:
    """Make a directory and its parents where they are missing, each one synced into its parent."""
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
    """Write a file that must not exist yet, synced; on an error nothing of it is left."""
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


def write_file(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file, in place of one that may be there, and sync it; on an error nothing of it is left."""
    remove(path)
    fd = os.open(path, _NEW | os.O_RDWR, 0o666)
    try:
        with os.fdopen(fd, "w+b") as stream:
            write(stream)
            stream.flush()
            _sync_fd(fd)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(path)
        raise


def sync_file(path: Path) -> None:
    """Sync a file that somebody else's code has written."""
    fd = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0))
    try:
        _sync_fd(fd)
    finally:
        os.close(fd)


def rename_over(source: Path, target: Path) -> None:
    """Rename a synced file, over one that may be there, so that the name lasts."""
    _with_retries(lambda: os.replace(source, target))
    sync_dir(target.parent)


def rename_new(source: Path, target: Path) -> None:
    """Rename to a name nobody has.

    Raises:
        FileExistsError: the name is taken.
    """
    if os.path.lexists(target):
        raise FileExistsError(errno.EEXIST, "the name is taken", str(target))
    _with_retries(lambda: os.rename(source, target))


def publish(staging: Path, target: Path) -> None:
    """Give a finished folder its final name: sync it, rename it, sync the directories that hold the names."""
    sync_dir(staging)
    rename_new(staging, target)
    sync_dir(target.parent)
    if staging.parent != target.parent:
        sync_dir(staging.parent)


def remove(path: Path) -> None:
    """Delete a file; one that is not there is no error."""
    with contextlib.suppress(FileNotFoundError):
        _with_retries(lambda: os.unlink(path))


def remove_tree(path: Path) -> None:
    """Delete a folder and all in it; one that is not there is no error."""
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
