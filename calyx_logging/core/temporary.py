"""Temporary folders that leave nothing behind: those of killed processes are removed when the next one is made.

A folder's name has its process's id, and its file `.lock` is locked while the folder is in use. Invariant: a folder is
removed as a leftover only if it is this user's, its lock is free, and its process is known to have ended.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from calyx_logging.core import files
from calyx_logging.core.locks import is_gone
from calyx_logging.core.os_lock import Held, OsLock
from calyx_logging.core.reading import names_in
from calyx_logging.errors import ConfigError, StorageError

__all__ = ["TemporaryFolder", "temporary_folder"]

_LOCK = ".lock"
_YOUNG_SECONDS = 600
"""Where nobody can tell whether a process has ended (Windows), a folder younger than this may not be locked yet."""


class TemporaryFolder:
    """A folder of this process, until it is removed.

    Args:
        prefix: the beginning of its name, such as `calyx-query-`; leftovers with it are removed.

    Raises:
        OSError: it cannot be created.

    Attributes:
        path: the folder.
    """

    def __init__(self, prefix: str) -> None:
        _sweep(Path(tempfile.gettempdir()), prefix)
        self.path = Path(tempfile.mkdtemp(prefix=f"{prefix}{os.getpid()}-"))
        self._lock = OsLock(self.path / _LOCK)
        with suppress(ConfigError):  # without locks, its process's id has to do
            self._lock.acquire(blocking=False)

    def remove(self) -> None:
        """Delete the folder and its content, as far as they can be deleted."""
        self._lock.release()  # first, because Windows deletes no open file
        with suppress(OSError):
            files.remove_tree(self.path)


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """Create a temporary folder, and remove it at the end of the block."""
    folder = TemporaryFolder(prefix)
    try:
        yield folder.path
    finally:
        folder.remove()


def _sweep(parent: Path, prefix: str) -> None:
    with suppress(StorageError, OSError):
        for name in names_in(parent):
            if name.startswith(prefix):
                _remove_leftover(parent / name, name.removeprefix(prefix).partition("-")[0])


def _remove_leftover(folder: Path, pid: str) -> None:
    state = folder.lstat()
    is_ours = not hasattr(os, "geteuid") or state.st_uid == os.geteuid()
    if not is_ours or folder.is_symlink() or not folder.is_dir() or not pid.isdigit():
        return
    if not is_gone(f"{pid} {socket.gethostname()}") and (os.name != "nt" or _is_young(state)):
        return
    lock = OsLock(folder / _LOCK)
    with suppress(Held, ConfigError, OSError):
        lock.acquire(blocking=False)
        lock.release()
        files.remove_tree(folder)


def _is_young(state: os.stat_result) -> bool:
    return time.time() - state.st_mtime < _YOUNG_SECONDS
