"""The locks that show which writers are alive, and the files that name their processes."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from calyx_logging.core import crash_file, files
from calyx_logging.core.os_lock import Held, OsLock, has_no_locks, without_locks
from calyx_logging.errors import ConfigError, StorageError

__all__ = [
    "MAX_NOTE",
    "Holder",
    "WriterLock",
    "holder_of",
    "is_gone",
    "lock_file",
    "named_in",
    "need_root",
    "note_in",
    "probe",
    "read_holder",
    "this_process",
    "writers_with_locks",
]

_RESERVE_BYTES = 8192
_BLOCK = 4096
MAX_NOTE = 3400
"""The longest note, in bytes: with the lines before it, it fits into the block that the file keeps on a full disk."""


def lock_file(outbox: Path, writer: str) -> Path:
    """Return the path of the file that a writer keeps locked while it lives."""
    return outbox / ".writers" / f"{writer}.lock"


def writers_with_locks(outbox: Path) -> list[str]:
    """Return the ids of the writers that have lock files, living or dead, sorted."""
    return sorted(p.stem for p in (outbox / ".writers").glob("*.lock") if p.is_file() and not p.is_symlink())


def probe(outbox: Path) -> None:
    """Fail now, when a writer is configured, if its first event would fail.

    Raises:
        ConfigError: the outbox cannot be written, or its file system has no locks.
    """
    try:
        if has_no_locks(outbox / ".writers"):
            raise without_locks(outbox)
    except OSError as error:
        storage = StorageError.of(error, "write to the outbox", outbox)
        raise ConfigError(
            storage.message, path=outbox, hint="make the folder writable, or name another root"
        ) from error


def need_root(outbox: Path) -> None:
    """Raise FileNotFoundError if an outbox's root folder was deleted."""
    root = outbox.parents[2]
    if not root.is_dir():
        raise FileNotFoundError(errno.ENOENT, "the root folder was deleted", str(root))


class WriterLock:
    """The lock of a living writer; its file reserves some bytes that it can release when the disk is full.

    The file's first line holds a space (Windows locks the first byte against readers), the process id and the host. The
    second line holds the boot id, the pid namespace and the process's start time, or a dash for what the system does
    not tell. 8 KiB of blanks follow, in which the third line may be a note (`calyx_logging.format.loss_note`).

    Args:
        outbox: the folder.
        reserve: whether to reserve bytes.
        component: for the crash file that one of a process's locks brings with it (`calyx_logging.core.crash_file`).

    Attributes:
        component: as given.
        writer: the writer's id, 8 hexadecimal digits; settled once the lock is held.
    """

    held: ClassVar[weakref.WeakSet[WriterLock]] = weakref.WeakSet()
    """Those that this process holds."""

    def __init__(self, outbox: Path, *, reserve: bool = True, component: str = "harness") -> None:
        self.component = component
        self._reserve = b" " * (_RESERVE_BYTES if reserve else 0)
        self.writer = secrets.token_hex(4)
        self._outbox = outbox
        self._lock: OsLock | None = None
        self._named = b""
        self._note = b""
        self._has_reserve = False

    def take(self) -> None:
        """Take the lock unless this object already holds it.

        Raises:
            FileNotFoundError: the root folder was deleted.
            OSError: the file cannot be created or locked.
        """
        if self._lock is not None:
            return
        need_root(self._outbox)  # do not recreate a root that was deleted
        while True:
            lock = OsLock(lock_file(self._outbox, self.writer))
            try:
                fd = lock.acquire(blocking=False)
                break
            except Held:  # another writer has the same random id
                self.writer = secrets.token_hex(4)
            except ConfigError as error:
                raise OSError(errno.ENOLCK, error.message, str(self._outbox)) from error
        self._has_reserve = self._fill(fd)
        # before the first chunk, so that a power loss cannot leave a chunk without its writer's lock file
        files.sync_dir(self._outbox / ".writers")
        self._lock = lock
        WriterLock.held.add(self)
        self._begin_crash_file()

    def _begin_crash_file(self) -> None:
        if self._reserve:  # else this is the end, and the room may be needed to tell of losses
            crash_file.begin(self._crash_path, this_process(), self.component)

    def _leave_crash_file(self) -> None:
        """Leave the crash file to another lock of this process, if there is one; on a full disk, without more room."""
        others = list(WriterLock.held)[:1]
        if any(crash_file.pass_on(self._crash_path, other._crash_path) for other in others):
            return
        if crash_file.end(self._crash_path):
            for other in others:
                other._begin_crash_file()

    @property
    def _crash_path(self) -> Path:
        return lock_file(self._outbox, self.writer).with_suffix(crash_file.SUFFIX)

    def give_back(self, *, delete: bool) -> None:
        """Release the lock if it is held; its file stays if the writer left anything to recover."""
        lock, self._lock = self._lock, None
        if lock is not None:
            WriterLock.held.discard(self)
            if delete:
                self._leave_crash_file()
            lock.release()
            if delete:
                files.remove(lock_file(self._outbox, self.writer))

    @property
    def has_reserve(self) -> bool:
        """Whether it holds reserved bytes."""
        return self._has_reserve

    @property
    def is_lost(self) -> bool:
        """Whether somebody has deleted the file; False where that cannot be told."""
        with contextlib.suppress(OSError):
            return not lock_file(self._outbox, self.writer).exists()
        return False

    def forget(self) -> None:
        """Forget the lock in a forked child without unlocking it: it is still the parent's."""
        lock, self._lock = self._lock, None
        crash_file.forget()
        if lock is not None:
            WriterLock.held.discard(self)
            lock.forget()

    def free_room(self) -> bool:
        """Release the reserved bytes, and the crash file; return False if nothing was reserved."""
        crash_file.end(self._crash_path)
        lock, has_reserve, self._has_reserve = self._lock, self._has_reserve, False
        return lock is not None and has_reserve and lock.cut(len(self._named) + len(self._note))

    @property
    def has_note(self) -> bool:
        """Whether there is a note in its file."""
        return self._lock is not None and bool(self._note.rstrip())

    def note(self, text: bytes) -> None:
        """Replace the note in the file, if the lock is held and the file can be written.

        Args:
            text: one line of ASCII, at most `MAX_NOTE` bytes; empty for none.
        """
        if self._lock is not None and text != self._note.rstrip():
            line = text.ljust(len(self._note))
            if self._lock.write(len(self._named), line):
                self._note = line

    def _fill(self, fd: int) -> bool:
        self._named = this_process()
        with contextlib.suppress(OSError):  # on a full disk the lock still holds, without its reserve
            os.lseek(fd, 0, os.SEEK_SET)
            os.write(fd, self._named)
            os.write(fd, self._reserve)
            os.fsync(fd)  # after a loss of power, recovery asks after the process that is named here
            return bool(self._reserve)
        return False


def this_process() -> bytes:
    """Return the two lines that name this process in its lock files and its crash file."""
    return f" {os.getpid()} {socket.gethostname()}\n{_boot()} {_namespace()} {_start(os.getpid())}\n".encode()


@dataclass(frozen=True)
class Holder:
    """The process that a lock file names.

    Attributes:
        pid, host: the process.
        boot: the system's boot id; "-" if unknown.
        namespace: its pid namespace; "-" if unknown.
        start: when the process started, in the system's ticks; "-" if unknown.
    """

    pid: int
    host: str
    boot: str = "-"
    namespace: str = "-"
    start: str = "-"

    def __str__(self) -> str:
        return f"{self.pid} {self.host}"

    @property
    def is_here(self) -> bool:
        """Whether its process id is valid here, that is in this host and pid namespace."""
        known = self.namespace == "-" or self.namespace == _namespace()  # older versions wrote no namespace
        return self.host == socket.gethostname() and known

    @property
    def is_of_this_boot(self) -> bool:
        """Whether the system has not been rebooted since, as far as is known."""
        return self.boot != "-" and self.boot == _boot()

    @property
    def is_of_another_boot(self) -> bool:
        """Whether the system is known to have been rebooted since."""
        return "-" not in (self.boot, _boot()) and self.boot != _boot()

    @property
    def has_ended(self) -> bool:
        """Whether the process ran in this host and namespace and is known to have ended; POSIX only."""
        if os.name != "posix" or not self.is_here or self.boot not in ("-", _boot()):
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return True
        except OSError:
            pass  # it exists and belongs to another user
        start = _start(self.pid)
        return start == _ENDED or (self.start != "-" and start != "-" and start != self.start)


_ENDED = "ended"


def _start(pid: int) -> str:
    """Return when a process started, in the system's ticks; `ended` for a zombie."""
    try:
        after_name = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return _ENDED if after_name[0] in (b"Z", b"X") else after_name[19].decode()
    except (OSError, IndexError):
        return "-"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip() or "-"
    except (OSError, ValueError):
        return "-"


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink()).replace(" ", "") or "-"
    except (OSError, AttributeError):
        return "-"


def is_gone(holder: str | None) -> bool:
    """Tell whether the process that a lock file names ("1234 hostname") is known to have ended; POSIX only."""
    pid, _, host = (holder or "").partition(" ")
    return pid.isdigit() and Holder(int(pid), host).has_ended


def holder_of(outbox: Path, writer: str) -> str | None:
    """Return process id and host from a writer's lock file; None if there is no such file."""
    found = _lines_of(lock_file(outbox, writer))
    return None if found is None else (found[0] if found else "") or "unknown"


def read_holder(outbox: Path, writer: str) -> Holder | None:
    """Return the process that a writer's lock file names; None if it names none or cannot be read."""
    return named_in(_lines_of(lock_file(outbox, writer)) or [""])


def note_in(outbox: Path, writer: str) -> str:
    """Return the note in a writer's lock file; empty if there is none."""
    found = _lines_of(lock_file(outbox, writer)) or []
    return found[2] if len(found) > 2 else ""


def named_in(lines: list[str]) -> Holder | None:
    """Parse the process that the first lines of a lock file or crash file name."""
    pid, _, host = lines[0].partition(" ")
    if not pid.isdigit() or not host:
        return None
    more = lines[1].split() if len(lines) > 1 else []
    return Holder(int(pid), host, *more) if len(more) == 3 else Holder(int(pid), host)


def _lines_of(path: Path) -> list[str] | None:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        return None  # no writer made it; and a pipe would be waited for
    try:
        with path.open("rb", buffering=0) as stream:
            stream.seek(1)  # Windows locks the first byte against readers
            return [line.strip() for line in stream.read(_BLOCK).decode("utf-8", "replace").split("\n")]
    except FileNotFoundError:
        return None
    except OSError:
        return []
