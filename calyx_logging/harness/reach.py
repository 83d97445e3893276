"""Record a program from before its first line, and count: records emitted, and records that reached the outbox.

`calyx-telemetry run` sets the environment; each Python process below it, however started, sets itself up
(`at_start/sitecustomize.py`): an OutboxHandler that captures every logger, and a count around the methods of
`logging.Logger` that pass a record on. A record is emitted when it comes to `handle`, which filters it, or in classes
that replace that method, to `callHandlers`. Each process keeps two totals in a file that survives it, and at its end
writes what it counted for each logger.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import mmap
import os
import re
import socket
import struct
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from calyx_logging.core import files, json_bytes
from calyx_logging.core.locks import is_gone
from calyx_logging.errors import CalyxError, say
from calyx_logging.events.capture import as_if_in_logging
from calyx_logging.events.stamp import has_taken, take
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.recording.background import at_end

__all__ = ["AT_START", "ENVIRONMENT", "ProcessCount", "begin", "counts_in", "environment_for"]

ENVIRONMENT = "CALYX_LOGGING_RUN"
"""The variable that holds the options, as JSON: `counts` (a folder), `level`, and the handler's."""

AT_START = Path(__file__).parent / "at_start"
"""The folder with the `sitecustomize` of recorded processes."""

_TOTALS = struct.Struct("<QQ")
_MODULE = re.compile(r"-[A-Za-z]*?m(.*)")


@dataclass
class ProcessCount:
    """The counts of one process.

    Attributes:
        pid: the process.
        program: its command line, without values.
        state: `ended`; `killed`: it left totals alone; `running`.
        emitted, arrived: records.
        missing: by logger, how many did not arrive; empty unless it ended.
    """

    pid: int
    program: str
    state: str
    emitted: int
    arrived: int
    missing: dict[str, int] = field(default_factory=dict)


def environment_for(options: dict[str, Any], inherited: dict[str, str]) -> dict[str, str]:
    """Return the environment for a program that is to be recorded, given the one it would have."""
    path = os.pathsep.join(filter(None, [str(AT_START), inherited.get("PYTHONPATH", "")]))
    return {**inherited, "PYTHONPATH": path, ENVIRONMENT: json_bytes.dumps(options).decode()}


def begin() -> None:
    """Set up this process, as the environment says; a failure is one line on standard error, and nothing more."""
    try:
        options = json_bytes.loads(os.environ.get(ENVIRONMENT, ""))
        folder, level = Path(options.pop("counts")), options.pop("level", None)
        handler = _CountedHandler(**options)
        if level is not None:
            logging.getLogger().setLevel(level)
    except (CalyxError, OSError, ValueError, KeyError, TypeError) as error:
        say(f"not recorded: {type(error).__name__}: {error}")
        return
    handler.counts = counts = _Counts(folder, handler.has_taken)
    _count_around("handle", counts.enter, counts.leave)
    _count_around("callHandlers", counts.enter_handlers, counts.leave)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=counts.let_go)
    at_end.append(counts.finish)
    atexit.register(counts.finish)
    _finish_before_exit(counts)


class _CountedHandler(OutboxHandler):
    """Notes for the count around it that it kept a record."""

    counts: _Counts | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        try:
            if take(record, self._token):
                is_kept = self.submit(self._event_formatter.encode, record) is True
            else:
                is_kept = True  # the program's own handler of this outbox took it
        except RecursionError as error:  # the program's stack is full
            self._pool.note_lost(error)
            return
        if is_kept and self.counts is not None:
            self.counts.note_kept()

    def has_taken(self, record: logging.LogRecord) -> bool:
        """Whether it has the record already."""
        return has_taken(record, self._token)


@dataclass(slots=True, eq=False)
class _Call:
    """A record's way through a logger."""

    logger: logging.Logger
    is_handed_on: bool
    is_kept: bool = False


class _Local(threading.local):
    """A thread's calls, one inside the other."""

    def __init__(self) -> None:
        self.calls: list[_Call] = []


class _Counts:
    """A process's counts, and their file. Nothing here raises in the program."""

    def __init__(self, folder: Path, has_taken: Callable[[logging.LogRecord], bool]) -> None:
        self._folder = folder
        self._has_taken = has_taken
        self._local = _Local()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._emitted: dict[str, itertools.count[int]] = {}
        self._arrived: dict[str, itertools.count[int]] = {}
        self._all_emitted, self._all_arrived = itertools.count(1), itertools.count(1)
        self._last = [0, 0]
        self._path = self._folder / f"{self._pid}-{os.urandom(4).hex()}"
        self._totals: mmap.mmap | bytearray = bytearray(_TOTALS.size)
        path = self._path.with_suffix(".totals")
        try:
            files.write_new(path, [bytes(_TOTALS.size), _program().encode("utf-8", "replace")], sync=False)
            with path.open("r+b") as stream:
                self._totals = mmap.mmap(stream.fileno(), _TOTALS.size)
        except OSError as error:  # `run` has ended, perhaps
            say(f"the records of process {self._pid} are not counted: {type(error).__name__}: {error}")

    def let_go(self) -> None:
        """In a forked child: let go of the parent's file at once, while its descriptor's number is nobody else's."""
        self._totals = bytearray(_TOTALS.size)

    def enter(self, logger: logging.Logger, record: logging.LogRecord) -> _Call | None:
        """Count a record that comes to a logger; None for one that was handed on from another."""
        return None if self._has_taken(record) else self._count(_Call(logger, is_handed_on=False))

    def enter_handlers(self, logger: logging.Logger, record: logging.LogRecord) -> _Call | None:
        """Count a record that comes to a logger's handlers, unless `enter` has: classes may replace `handle`."""
        calls = self._local.calls
        if calls and calls[-1].logger is logger and not calls[-1].is_handed_on:
            calls[-1].is_handed_on = True
            return None
        return None if self._has_taken(record) else self._count(_Call(logger, is_handed_on=True))

    def _count(self, call: _Call) -> _Call:
        if self._pid != os.getpid():
            self._begin()
        self._last[0] = next(self._all_emitted)
        _add(self._emitted, call.logger.name)
        _TOTALS.pack_into(self._totals, 0, *self._last)
        self._local.calls.append(call)
        return call

    def leave(self, call: _Call | None) -> None:
        """End what `enter` began."""
        if call is None:
            return
        calls = self._local.calls
        if calls[-1] is call:
            calls.pop()
        else:  # greenlets share a thread
            calls.remove(call)

    def note_kept(self) -> None:
        """Count the record that this thread hands on as one that arrived."""
        calls = self._local.calls
        if calls and not calls[-1].is_kept:
            calls[-1].is_kept = True
            self._last[1] = next(self._all_arrived)
            _add(self._arrived, calls[-1].logger.name)
            _TOTALS.pack_into(self._totals, 0, *self._last)

    def finish(self) -> None:
        """Write what was counted; once for each process."""
        if self._pid != os.getpid() or not self._path.with_suffix(".totals").exists():
            return
        emitted = {name: next(count) for name, count in list(self._emitted.items())}
        self._emitted = {name: itertools.count(count) for name, count in emitted.items()}
        arrived = {name: next(count) for name, count in list(self._arrived.items())}
        self._arrived = {name: itertools.count(count) for name, count in arrived.items()}
        try:
            files.replace_file(
                self._path.with_suffix(".json"), json_bytes.dumps({"emitted": emitted, "arrived": arrived})
            )
        except OSError as error:
            say(f"cannot write how many records were kept: {error}")


def _program() -> str:
    """Return the script or module that this process runs, without its arguments."""
    if sys.argv[:1] == ["-m"]:
        for argument, following in itertools.pairwise([*sys.orig_argv[1:], ""]):
            if option := _MODULE.fullmatch(argument):
                return f"-m {option[1] or following}"
    return Path(sys.argv[0] if sys.argv and sys.argv[0] else sys.executable).name


def _add(counts: dict[str, itertools.count[int]], name: str) -> None:
    next(counts.get(name) or counts.setdefault(name, itertools.count()))


def _count_around(
    name: str, enter: Callable[[logging.Logger, logging.LogRecord], _Call | None], leave: Callable[[_Call | None], None]
) -> None:
    """Replace a method of all loggers; no code but logging's, by its file name, stands below a handler on the stack."""
    before = getattr(logging.Logger, name)

    @functools.wraps(before)
    def around(self: logging.Logger, record: logging.LogRecord) -> None:
        call = enter(self, record)
        try:
            before(self, record)
        finally:
            leave(call)

    setattr(logging.Logger, name, as_if_in_logging(around))


def _finish_before_exit(counts: _Counts) -> None:
    before = os._exit

    @functools.wraps(before)
    def _exit(status: int) -> NoReturn:
        counts.finish()
        before(status)

    os._exit = _exit


def counts_in(folder: Path) -> list[ProcessCount]:
    """Read the counts of a run's processes, in the order of their process ids."""
    found = []
    for path in sorted(folder.glob("*.totals"), key=lambda path: int(path.stem.partition("-")[0])):
        pid, data = int(path.stem.partition("-")[0]), path.read_bytes()
        program = data[_TOTALS.size :].decode("utf-8", "replace")
        emitted, arrived = _TOTALS.unpack_from(data)
        try:
            counted = json_bytes.loads(path.with_suffix(".json").read_bytes())
        except (OSError, ValueError):
            has_ended = os.name == "nt" or is_gone(f"{pid} {socket.gethostname()}")
            state = "killed" if has_ended else "running"
            found.append(ProcessCount(pid, program, state, emitted, arrived))
            continue
        missing = {name: count - counted["arrived"].get(name, 0) for name, count in counted["emitted"].items()}
        missing = {name: count for name, count in missing.items() if count}
        totals = sum(counted["emitted"].values()), sum(counted["arrived"].values())
        found.append(ProcessCount(pid, program, "ended", *totals, missing))
    return found
