"""The crash file: what a process that is ended from outside leaves beside its writers' locks, for recovery to read.

`faulthandler` writes stacks into it, in C, when a signal ends the process; nothing of the program changes by it. Of a
fatal error it writes those of all threads. Of any other signal it writes that of the thread which got it alone: others
may run at that moment, and to read their frames then can crash, so that the process would die of another signal. A
process has one such file at a time, which lies beside the lock of one of its writers and ends with it.

Its first block names the process, as a lock file does, and how many processes the system's out-of-memory killer had
ended by then. Each signal has an offset of its own, because faulthandler does not say which signal it was.

Invariants:

* The descriptors that faulthandler has are never closed, only led to another file: a crash never writes into a file of
  the program. A forked child leads them to the null device at once. Where the program has closed them, as daemons do,
  their numbers may be those of its own files: they are never touched again, and others are handed over.
  They have high numbers, which such a program's own files hardly get before.
* A signal that the program handles, in Python or C, is not touched, nor is a `faulthandler` that the program has
  enabled.
"""

from __future__ import annotations

import contextlib
import errno
import faulthandler
import functools
import os
import re
import signal
import sys
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calyx_logging.core import files
from calyx_logging.errors import say

__all__ = ["FATAL", "SIGNALS", "SUFFIX", "Crash", "begin", "end", "forget", "note_exit", "pass_on", "read", "want"]

SUFFIX = ".crash"
_BLOCK = 4096
_NEW = os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_HIGH = (600, 120)
"""Numbers from which descriptors are taken, where the process may have so many."""

_ALL_THREADS = sys.version_info < (3, 14)
"""From then on it may stop at the state of a thread that it takes for freed, before it comes to the one in question."""

_MAX_TEXT = 16 * 1024
"""Bytes of stacks that are read."""

SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM")
"""Those that end a process by default, besides those of `faulthandler.enable`; their offsets go by this order."""

_FATAL = (
    (b"Segmentation fault", "SIGSEGV"),
    (b"Aborted", "SIGABRT"),
    (b"Bus error", "SIGBUS"),
    (b"Floating", "SIGFPE"),
    (b"Illegal instruction", "SIGILL"),
)
FATAL = frozenset(name for _, name in _FATAL)
"""Signals of faults in the process itself."""


@dataclass(frozen=True)
class Crash:
    """The contents of a crash file.

    Attributes:
        process: the lines that name the process, as in its writers' lock files.
        component: of the chunks that its writer would have made.
        signal: the name of the signal that ended it; None if none is known.
        exit_code: that of `os._exit`; None if it was not called.
        text: stacks, as faulthandler writes them.
        oom_kills: processes that the out-of-memory killer has ended since, in the whole system.
    """

    process: bytes
    component: str
    signal: str | None
    exit_code: int | None
    text: str
    oom_kills: int

    @property
    def fields(self) -> dict[str, object]:
        """The fields that an end line gets from it."""
        found = {"signal": self.signal, "exit_code": self.exit_code, "fault": self.text or None}
        fields: dict[str, object] = {name: value for name, value in found.items() if value is not None}
        if not fields and self.oom_kills > 0:
            fields["oom_kills"] = self.oom_kills
        return fields


_wanted = False
_free: deque[None] = deque([None])
"""Holds one item while no file is in use; `pop` and `append` are atomic."""

_path: Path | None = None
_descriptors: list[int] = []
"""That of `faulthandler.enable`, and one for each signal."""

_led_to: tuple[int, int] | None = None
"""The file that they stand for, by device and number."""

_registered: set[int] = set()
"""Signals that faulthandler was given."""

_has_enabled = False
_is_watching = False


def want() -> None:
    """Have the next lock that is taken in this process bring a crash file with it."""
    global _wanted
    _wanted = True


def begin(path: Path, process: bytes, component: str) -> bool:
    """Make the process's crash file, unless it has one or wants none."""
    global _path
    if not _wanted or _path is not None:
        return False
    try:
        _free.pop()
    except IndexError:  # another thread makes one
        return False
    try:
        head = process + f"{component}\n{_oom_kills()}\n".encode()
        _lead_to(path, head.ljust(_BLOCK))
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove(path)
        _free.append(None)
        say(f"cannot make {path}: {error}; what ends this process from outside will not be known")
        return False
    _path = path
    return True


def end(path: Path) -> bool:
    """Delete the crash file at a path, if it is this process's; return whether it was."""
    global _path
    if _path != path:
        return False
    with contextlib.suppress(OSError):  # there may be no descriptor left
        _lead_to(Path(os.devnull), b"")
    with contextlib.suppress(OSError):
        files.remove(path)
    _path = None
    _free.append(None)
    return True


def pass_on(path: Path, to: Path) -> bool:
    """Have the crash file at a path lie at another one, taking no room for it; return whether it does."""
    global _path
    if _path != path or os.name == "nt":  # which renames no open file
        return False
    try:
        files.rename_over(path, to)
    except OSError:  # on another file system
        return False
    _path = to
    return True


def forget() -> None:
    """In a forked child: let go of the parent's file, touching nothing on disk."""
    global _path
    if _path is not None:
        _path = None
        with contextlib.suppress(OSError):
            _lead_to(Path(os.devnull), b"")
        _free.append(None)


def note_exit(code: int) -> None:
    """Note that `os._exit` ends the process."""
    if _path is not None and _descriptors and _are_ours():
        with contextlib.suppress(OSError):
            os.write(_descriptors[0], b"os._exit(%d)\n" % code)


def _lead_to(path: Path, head: bytes) -> None:
    """Lead all descriptors to a file, each to its own offset; the first time, hand them to faulthandler.

    Without a head it is the null device.
    """
    global _led_to
    if _descriptors and not _are_ours():
        _let_go()
    if not head and not _descriptors:
        return
    fds: list[int] = []
    try:
        for index in range(1 + len(SIGNALS) if head and os.name == "posix" else 1):
            fds.append(os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0) | (0 if fds or not head else _NEW), 0o666))
            if head:
                os.lseek(fds[-1], _BLOCK * (1 + index), os.SEEK_SET)
        if head:
            os.lseek(fds[0], 0, os.SEEK_SET)
            if os.write(fds[0], head) != len(head):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not _descriptors:
            _descriptors.extend(map(_out_of_the_way, fds))
            fds.clear()
            _hand_over()
        for index, known in enumerate(_descriptors if fds else ()):
            os.dup2(fds[index if head else 0], known, inheritable=False)
        _led_to = _file_of(_descriptors[0])
    finally:
        for fd in fds:
            os.close(fd)
    if head:
        _register()


def _out_of_the_way(fd: int) -> int:
    """Give a descriptor a high number, where the system has that."""
    if sys.platform == "win32":
        return fd
    import fcntl

    for least in _HIGH:
        with contextlib.suppress(OSError):
            high = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, least)
            os.close(fd)
            return high
    return fd


def _file_of(fd: int) -> tuple[int, int]:
    found = os.fstat(fd)
    return found.st_dev, found.st_ino


def _are_ours() -> bool:
    """Check that the program has closed none of them."""
    try:
        return all(_file_of(fd) == _led_to for fd in _descriptors)
    except OSError:
        return False


def _let_go() -> None:
    """Have faulthandler write to none of them any more."""
    if _has_enabled:
        faulthandler.disable()
    for number in _registered:
        if signal.getsignal(number) is signal.SIG_DFL:  # else it is not faulthandler's
            faulthandler.unregister(number)
    _registered.clear()
    _descriptors.clear()


def _by_signal() -> dict[int, int]:
    """Map the numbers of this system's signals to their descriptors."""
    found = zip(SIGNALS, _descriptors[1:], strict=False)
    return {getattr(signal, name): fd for name, fd in found if hasattr(signal, name)}


def _hand_over() -> None:
    global _has_enabled, _is_watching
    caught = _caught_in_c()
    if not faulthandler.is_enabled() and not any(_has(caught, name) for _, name in _FATAL):
        faulthandler.enable(_descriptors[0], all_threads=_ALL_THREADS)
        _has_enabled = True
    if not _is_watching and os.name == "posix":
        _is_watching = True
        _take_back()


def _register() -> None:
    """Have the signals noted that would end the process.

    They do not end the first process of a container, for which the system ignores what has no handler.
    """
    if _registered or os.getpid() == 1:
        return
    caught = _caught_in_c()
    for number, fd in _by_signal().items():
        if signal.getsignal(number) is signal.SIG_DFL and not caught >> number - 1 & 1:
            _give(number, fd)


def _give(number: int, fd: int) -> None:
    """Have faulthandler write the signalled thread's stack to a descriptor, and let the signal do what it does."""
    faulthandler.register(number, fd, all_threads=False, chain=True)
    _registered.add(number)


def _caught_in_c() -> int:
    """Return the signals that have a handler, as bits; Python itself does not know of handlers in C."""
    try:
        found = re.search(rb"^SigCgt:\s*([0-9a-f]+)", Path("/proc/self/status").read_bytes(), re.MULTILINE)
    except OSError:  # not Linux
        return 0
    return int(found[1], 16) if found else 0


def _has(signals: int, name: str) -> bool:
    return hasattr(signal, name) and bool(signals >> getattr(signal, name) - 1 & 1)


def _take_back() -> None:
    """Register a signal again when the program gives up its own handler: servers do, to end by the signal they had."""
    before = signal.signal

    @functools.wraps(before)
    def set_handler(signalnum: Any, handler: Any) -> Any:
        previous = before(signalnum, handler)
        if handler is signal.SIG_DFL and signalnum in (ours := _by_signal()) and os.getpid() != 1:
            faulthandler.unregister(signalnum)
            _give(int(signalnum), ours[signalnum])
        return previous

    signal.signal = set_handler


def _oom_kills() -> int:
    """Count the processes that the out-of-memory killer has ended since the system started; 0 if unknown."""
    try:
        counts = Path("/proc/vmstat").read_bytes()
    except OSError:
        return 0
    number = counts.partition(b"\noom_kill ")[2].partition(b"\n")[0]
    return int(number) if number.isdigit() else 0


def read(path: Path) -> Crash:
    """Read a crash file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none.
    """
    data = files.read_regular(path)
    process, component, kills = _head_of(data[:_BLOCK])
    text = data[_BLOCK:].strip(b"\0")
    index = (len(data[_BLOCK:]) - len(data[_BLOCK:].lstrip(b"\0"))) // _BLOCK
    found = re.search(rb"os\._exit\((-?[0-9]+)\)", text)
    signal_name = None
    if text and not found:
        signal_name = SIGNALS[index - 1] if 0 < index <= len(SIGNALS) else _fatal_signal(text)
    return Crash(
        process,
        component,
        signal_name,
        int(found[1]) if found else None,
        "" if found else text[:_MAX_TEXT].decode("utf-8", "replace").strip(),
        _oom_kills() - kills,
    )


def _head_of(block: bytes) -> tuple[bytes, str, int]:
    lines = block.split(b"\n")
    if len(lines) < 5 or not lines[3].isdigit():
        raise ValueError("no crash file")
    return b"\n".join(lines[:2]) + b"\n", lines[2].decode("ascii", "replace"), int(lines[3])


def _fatal_signal(text: bytes) -> str | None:
    start = text[:200]
    return next((name for words, name in _FATAL if words in start), None)
