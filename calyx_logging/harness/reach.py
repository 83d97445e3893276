"""Record a program from before its first line, and count: records emitted, and records that reached the outbox.

`calyx-telemetry run` sets the environment; each Python process below it, however started, sets itself up
(`at_start/sitecustomize.py`): an OutboxHandler that captures every logger, and a count around `logging.Logger.handle`.
A record is emitted when its logger lets it through to its handlers. Each process keeps two totals in a file that
survives it, and at its end writes what it counted for each logger.
"""

from __future__ import annotations

import atexit
import functools
import itertools
import logging
import mmap
import os
import socket
import struct
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import orjson

from calyx_logging.core import files
from calyx_logging.core.locks import is_gone
from calyx_logging.errors import CalyxError, say
from calyx_logging.events.capture import as_if_in_logging
from calyx_logging.handlers.outbox import OutboxHandler
from calyx_logging.recording.background import at_end

__all__ = ["AT_START", "ENVIRONMENT", "ProcessCount", "begin", "counts_in", "environment_for"]

ENVIRONMENT = "CALYX_LOGGING_RUN"
"""The variable that holds the options, as JSON: `counts` (a folder), `level`, and the handler's."""

AT_START = Path(__file__).parent / "at_start"
"""The folder with the `sitecustomize` of recorded processes."""

_TOTALS = struct.Struct("<QQ")


@dataclass
class ProcessCount:
    """What one process counted.

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
    """The environment of a program that is to be recorded, from that which it would have."""
    path = os.pathsep.join(filter(None, [str(AT_START), inherited.get("PYTHONPATH", "")]))
    return {**inherited, "PYTHONPATH": path, ENVIRONMENT: orjson.dumps(options).decode()}


def begin() -> None:
    """Set up this process, as the environment says; a failure is one line on standard error, and nothing more."""
    try:
        options = orjson.loads(os.environ.get(ENVIRONMENT, ""))
        folder, level = Path(options.pop("counts")), options.pop("level", None)
        handler = _CountedHandler(**options)
        handler.counts = counts = _Counts(folder)
        if level is not None:
            logging.getLogger().setLevel(level)
    except (CalyxError, OSError, ValueError, KeyError, TypeError) as error:
        say(f"not recorded: {type(error).__name__}: {error}")
        return
    _count_around_handle(counts)
    at_end.append(counts.finish)
    atexit.register(counts.finish)
    _finish_before_exit(counts)


class _CountedHandler(OutboxHandler):
    """Notes for the count around it that it kept a record."""

    counts: _Counts | None = None

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record."""
        super().emit(record)
        if self.counts is not None:
            self.counts.note_kept()


class _Counts:
    """A process's counts, and their file."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._local = threading.local()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._emitted: dict[str, itertools.count[int]] = {}
        self._arrived: dict[str, itertools.count[int]] = {}
        self._all_emitted, self._all_arrived = itertools.count(1), itertools.count(1)
        self._last = [0, 0]
        path = self._folder / f"{self._pid}-{os.urandom(4).hex()}"
        files.write_new(path.with_suffix(".totals"), [b"\0" * _TOTALS.size, _program().encode("utf-8", "replace")])
        with path.with_suffix(".totals").open("r+b") as stream:
            self._totals = mmap.mmap(stream.fileno(), _TOTALS.size)
        self._path = path

    def around(self, name: str, handle: Any) -> None:
        """Count one record of a logger, and whether it was kept while `handle` ran."""
        if self._pid != os.getpid():
            self._begin()
        self._last[0] = next(self._all_emitted)
        next(self._emitted.get(name) or self._emitted.setdefault(name, itertools.count()))
        stack = self._local.__dict__.setdefault("stack", [])
        stack.append(False)
        try:
            handle()
        finally:
            if stack.pop():
                self._last[1] = next(self._all_arrived)
                next(self._arrived.get(name) or self._arrived.setdefault(name, itertools.count()))
            _TOTALS.pack_into(self._totals, 0, *self._last)

    def note_kept(self) -> None:
        """The record that this thread hands on was kept."""
        if stack := self._local.__dict__.get("stack"):
            stack[-1] = True

    def finish(self) -> None:
        """Write what was counted; once for each process."""
        if self._pid != os.getpid() or not self._path.with_suffix(".totals").exists():
            return
        emitted = {name: next(count) for name, count in list(self._emitted.items())}
        self._emitted = {name: itertools.count(count) for name, count in emitted.items()}
        arrived = {name: next(count) for name, count in list(self._arrived.items())}
        self._arrived = {name: itertools.count(count) for name, count in arrived.items()}
        try:
            files.replace_file(self._path.with_suffix(".json"), orjson.dumps({"emitted": emitted, "arrived": arrived}))
        except OSError as error:
            say(f"cannot write how many records were kept: {error}")


def _program() -> str:
    """The script, or the module, that this process runs; not its arguments, which may be anything."""
    if sys.argv[:1] == ["-m"] and "-m" in sys.orig_argv[:-1]:
        return f"-m {sys.orig_argv[sys.orig_argv.index('-m') + 1]}"
    return Path(sys.argv[0] if sys.argv and sys.argv[0] else sys.executable).name


def _count_around_handle(counts: _Counts) -> None:
    before = logging.Logger.handle

    @functools.wraps(before)
    def handle(self: logging.Logger, record: logging.LogRecord) -> None:
        counts.around(self.name, functools.partial(before, self, record))

    logging.Logger.handle = as_if_in_logging(handle)  # type: ignore[method-assign]


def _finish_before_exit(counts: _Counts) -> None:
    before = os._exit

    @functools.wraps(before)
    def _exit(status: int) -> NoReturn:
        counts.finish()
        before(status)

    os._exit = _exit


def counts_in(folder: Path) -> list[ProcessCount]:
    """What the processes of a run counted, in the order of their numbers."""
    found = []
    for path in sorted(folder.glob("*.totals"), key=lambda path: int(path.stem.partition("-")[0])):
        pid, data = int(path.stem.partition("-")[0]), path.read_bytes()
        program = data[_TOTALS.size :].decode("utf-8", "replace")
        emitted, arrived = _TOTALS.unpack_from(data)
        try:
            counted = orjson.loads(path.with_suffix(".json").read_bytes())
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
