"""Stand-ins between `core/files.py` and the system: a recorder of its operations, and an injector of errors.

Both are proxies put in the place of the `os` of `core.files` (it is the only door to the disk), so the code under test
is the real one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.events import formatter
from calyx_logging.handlers.base import EventHandler

CALLS = ("open", "write", "fsync", "close", "rename", "replace", "unlink", "mkdir", "rmdir", "ftruncate")


@contextmanager
def python_way() -> Iterator[None]:
    """Have no handler take the compiled core's way, so that faults put into Python functions are met."""
    core = formatter.CORE
    formatter.CORE = None  # type: ignore[misc]
    try:
        for handler in list(EventHandler.alive):
            handler._choose_way()
        yield
    finally:
        formatter.CORE = core  # type: ignore[misc]
        for handler in list(EventHandler.alive):
            handler._choose_way()


@contextmanager
def through(proxy: object) -> Iterator[None]:
    """Let `core.files` do its system calls through a proxy, all of them."""
    real = files.os
    files.os = proxy  # type: ignore[assignment]
    try:
        with python_way():
            yield
    finally:
        files.os = real


class Proxy:
    """Everything is the real `os`, but for the calls of a subclass."""

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


class Failing(Proxy):
    """Fails the n-th system call, or every one from the n-th on, with an error.

    A `write` that fails with ENOSPC takes half of its bytes first, as a full disk does.
    """

    def __init__(self, number: int, code: int, *, forever: bool = False, only: str | None = None) -> None:
        self.number, self.code, self.forever, self.only = number, code, forever, only
        self.count = 0
        self.failed: list[str] = []

    def _fails(self, name: str) -> bool:
        if self.only is not None and name != self.only:
            return False
        self.count += 1
        if self.count == self.number or (self.forever and self.count > self.number):
            self.failed.append(name)
            return True
        return False

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in CALLS or name == "close":
            return real

        def call(*args: Any, **kwargs: Any) -> Any:
            if not self._fails(name):
                return real(*args, **kwargs)
            if name == "write" and self.code == errno.ENOSPC and len(args[1]) > 1 and not self.forever:
                self.number += 1  # the rest of the bytes is what fails
                self.failed.pop()
                return real(args[0], args[1][: len(args[1]) // 2])
            raise OSError(self.code, os.strerror(self.code))

        return call


@dataclass(frozen=True)
class Op:
    """One operation, as the model of the disk sees it. `path` is relative to the root."""

    kind: str
    path: str
    target: str = ""
    data: bytes = b""
    size: int = 0


@dataclass
class Recording(Proxy):
    """Writes down every operation under a root, lock files (which core/os_lock.py makes) included."""

    root: Path
    ops: list[Op] = field(default_factory=list)
    _fds: dict[int, str] = field(default_factory=dict)
    _locks: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._locks = self._lock_files()

    def _lock_files(self) -> set[str]:
        found = self.root.glob("telemetry/outbox/*/.writers/*.lock")
        return {str(path.relative_to(self.root)) for path in found}

    def _rel(self, path: Any) -> str:
        return str(Path(path).relative_to(self.root))

    def note_locks(self) -> None:
        """Lock files that came into being since the last operation."""
        for path in sorted(self._lock_files() - self._locks):
            self._locks.add(path)
            self.ops.append(Op("create", path))
            self.ops.append(Op("write", path, data=(self.root / path).read_bytes()))
            self.ops.append(Op("sync", path))  # which core/locks.py does by itself

    def _add(self, op: Op) -> None:
        self.ops.append(op)

    def open(self, path: Any, flags: int, mode: int = 0o777) -> int:
        self.note_locks()
        fd = os.open(path, flags, mode)
        self._fds[fd] = self._rel(path)
        if flags & os.O_CREAT:
            self._add(Op("create", self._rel(path)))
        return fd

    def dup(self, fd: int) -> int:
        copy = os.dup(fd)
        self._fds[copy] = self._fds[fd]
        return copy

    def write(self, fd: int, data: Any) -> int:
        written = os.write(fd, data)
        self._add(Op("write", self._fds[fd], data=bytes(data[:written])))
        return written

    def ftruncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)
        self._add(Op("truncate", self._fds[fd], size=size))

    def fsync(self, fd: int) -> None:
        self.note_locks()
        os.fsync(fd)
        path = self._fds[fd]
        self._add(Op("sync_dir" if (self.root / path).is_dir() else "sync", path))

    def close(self, fd: int) -> None:
        self._fds.pop(fd, None)
        os.close(fd)

    def rename(self, source: Any, target: Any) -> None:
        self.note_locks()
        os.rename(source, target)
        self._moved(self._rel(source), self._rel(target))
        self._add(Op("rename", self._rel(source), target=self._rel(target)))

    def replace(self, source: Any, target: Any) -> None:
        self.note_locks()
        os.replace(source, target)
        self._moved(self._rel(source), self._rel(target))
        self._add(Op("rename", self._rel(source), target=self._rel(target)))

    def _moved(self, source: str, target: str) -> None:
        self._fds.update({fd: target for fd, path in self._fds.items() if path == source})

    def unlink(self, path: Any) -> None:
        self.note_locks()
        os.unlink(path)
        self._locks.discard(self._rel(path))
        self._add(Op("unlink", self._rel(path)))

    def mkdir(self, path: Any, mode: int = 0o777) -> None:
        os.mkdir(path, mode)
        self._add(Op("mkdir", self._rel(path)))

    def rmdir(self, path: Any) -> None:
        os.rmdir(path)
        self._add(Op("rmdir", self._rel(path)))
