"""OutboxHandler: the `logging.Handler` that keeps every record in the node's outbox."""

from __future__ import annotations

import logging
import os
import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from calyx_logging.compiled import shortcut
from calyx_logging.core import crash_file
from calyx_logging.core.validation import refuse_unknown
from calyx_logging.errors import CalyxError, say
from calyx_logging.events.capture import attach, check_names, names_captured_by
from calyx_logging.events.event import DEFAULT_MAX_EVENT_BYTES, DEFAULT_SOURCE
from calyx_logging.events.fast_logger import install_fast_logger
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.events.stamp import StampEvent, take
from calyx_logging.format.chunk import check_component
from calyx_logging.handlers import children
from calyx_logging.handlers.base import EventHandler, check_flags, check_root, say_last
from calyx_logging.node import Node
from calyx_logging.recording.background import let_go
from calyx_logging.recording.core_members import tell_core
from calyx_logging.recording.options import WriterOptions
from calyx_logging.recording.pool import WriterPool

__all__ = ["OutboxHandler"]

_OPTIONS = (
    "root",
    "component",
    "source",
    "max_bytes",
    "max_age",
    "max_event_bytes",
    "sync",
    "sync_interval",
    "fast",
    "capture",
    "follow_children",
    "crashes",
    "warnings",
    "stdout",
    "identity",
    "level",
    "formatter",
    "filters",
)

tell_core()
_said: set[str] = set()


def _find(root: str | os.PathLike[str] | None) -> Node:
    """Find the node; say once in a process that its root was copied from another machine."""
    check_root(root)
    try:
        node = Node.find(root)
    except CalyxError as error:
        say_last(error)
        raise
    if (stranger := node.stranger) is not None and stranger not in _said:
        _said.add(stranger)
        say(stranger)
    return node


def _is_stock(kind: type[OutboxHandler]) -> bool:
    """Whether a class handles records as OutboxHandler does."""
    own = kind.filter, kind.handle, kind.emit
    return own == (logging.Filterer.filter, OutboxHandler.handle, OutboxHandler.emit)


class OutboxHandler(EventHandler):
    """Writes each record as one event line, in the logging call itself.

    When the call returns the event is in the kernel and survives the death of the process. Never raises after it is
    configured: what cannot be kept is counted, said once on standard error, and written as a gap line when writing
    works again. All options are plain JSON values.

    Args:
        root: the folder with `runtime/node_id.txt`; default: `CALYX_ROOT`, else the nearest parent of the working
            directory that has one.
        component: part of the chunks' names: lower case letters, digits, single `_` or `-`, up to 48.
        source: the events' `source`.
        max_bytes: bytes after which a chunk is sealed and a new one begun.
        max_age: seconds after which that happens to a chunk of any size; null for never.
        max_event_bytes: bytes of one line; of a larger event the largest values are replaced by their hashes.
        sync: when bytes are flushed to the disk (fsync): `"seal"` (when a chunk is sealed), `"interval"` (and every
            `sync_interval` seconds), `"record"` (before each call returns).
        sync_interval: seconds.
        fast: install the fast logger (`calyx_logging.install_fast_logger`): the same records in less time, for all
            loggers of the process.
        capture: names of loggers that call the handler whatever becomes of their handlers, and though they cut
            propagation: of harnesses that configure logging themselves (`calyx_logging.events.capture`).
        follow_children: whether worker processes that are started without fork (spawn, forkserver, loky) log as this
            process does (`calyx_logging.handlers.children`).
        crashes: whether uncaught exceptions are logged, as events of level critical of the logger `uncaught`, and end
            lines say how the process ended (`calyx_logging.handlers.crashes`).
        warnings: whether Python's warnings are logged, with category, file and line, and shown as before
            (`calyx_logging.handlers.python_warnings`).
        stdout: whether lines that the program prints are logged, as events of the sources `stdout` and `stderr`, and
            printed as before (`calyx_logging.handlers.printed`).
        identity: whether control lines say what runs: host, user, program, git commit, packages, hardware
            (`calyx_logging.recording.identity`).
        level: as in every handler.

    Raises:
        ConfigError: an option is unknown or bad, or the outbox cannot be written or locked.
        NodeError: the root has no usable node id.

    Attributes:
        made: how many there have been in this process.
        options: those it was made with.
    """

    made = 0
    _in_background = True
    """Whether a thread may look after idle chunks; for subclasses."""

    def __init__(
        self,
        root: str | os.PathLike[str] | None = None,
        component: str = "harness",
        source: str = DEFAULT_SOURCE,
        max_bytes: int = 16 * 1024 * 1024,
        max_age: float | None = 3600,
        max_event_bytes: int = DEFAULT_MAX_EVENT_BYTES,
        sync: str = "seal",
        sync_interval: float = 1.0,
        fast: bool = False,
        capture: Iterable[str] = (),
        follow_children: bool = True,
        crashes: bool = True,
        warnings: bool = True,
        stdout: bool = False,
        identity: bool = True,
        level: int | str = logging.NOTSET,
        **unknown: Any,
    ) -> None:
        refuse_unknown("OutboxHandler", _OPTIONS, unknown)
        options = WriterOptions(max_bytes, max_age, sync, sync_interval, identity)
        flags = {"fast": fast, "crashes": crashes, "warnings": warnings, "stdout": stdout, "identity": identity}
        check_flags({**flags, "follow_children": follow_children})
        component = check_component(component)
        names = check_names(capture)
        node = _find(root)
        self.prepare(node, source, max_event_bytes)
        if crashes:
            crash_file.want()
        self._token = f"{node.outbox} {component} {source}"  # one made again, as by a notebook's cell, is the same one
        self._pool = WriterPool(node, component, options, background=self._in_background)
        weakref.finalize(self, let_go, self._pool).atexit = False
        self._own_pool: WriterPool | None = None
        self._bound: dict[str, tuple[EventFormatter, EventFormatter]] = {}
        self._options = options
        self._is_stock = _is_stock(type(self))
        if fast:
            install_fast_logger()
        super().__init__(level)
        self._choose_way()
        attach(self, names, (node.outbox, component, source))
        self.options: dict[str, Any] = {
            "root": str(node.root),
            "component": component,
            "source": source,
            "max_bytes": max_bytes,
            "max_age": max_age,
            "max_event_bytes": max_event_bytes,
            "sync": sync,
            "sync_interval": sync_interval,
            "capture": names,
            **flags,
        }
        children.step_aside()
        if follow_children:
            children.follow(self)
        for wanted, module in ((crashes, "crashes"), (warnings, "python_warnings"), (stdout, "printed")):
            if wanted:
                import_module(f"calyx_logging.handlers.{module}").listen(self)
        OutboxHandler.made += 1

    def _choose_way(self) -> None:
        """Send plain records the compiled core's way, unless something of this handler's needs the Python way."""
        is_usual = self._is_stock and self._options.sync != "record"
        self._way = self._event_formatter.way_to(self._pool, self._token) if is_usual else None

    @shortcut("handle")
    def handle(self, record: logging.LogRecord) -> Any:
        """Filter and emit; without the handler's lock, since no two calls share a writer."""
        if self._is_stock and not self.filters:
            try:
                if take(record, self._token):
                    self._pool.submit(self._event_formatter.encode, record)
            except RecursionError as error:  # the program's stack is full
                self._pool.note_lost(error)
            return True
        passed: Any = self.filter(record)  # a record, from Python 3.12 on
        if isinstance(passed, logging.LogRecord):
            record = passed
        if passed:
            self.emit(record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the record; one that this handler took before (through another logger) is ignored."""
        if take(record, self._token):
            self._pool.submit(self._event_formatter.encode, record)

    def handle_as(self, source: str, record: logging.LogRecord) -> None:
        """Filter and keep a record, as an event of another source."""
        bound = self._bound.get(source)
        if bound is None or bound[0] is not self._event_formatter:
            stamp = StampEvent(self._stamp.node_id, source)
            bound = self._event_formatter, self._event_formatter.bound_to(stamp, self._max_event_bytes)
            self._bound[source] = bound
        passed: Any = self.filter(record)
        if passed:
            self._pool.submit(bound[1].encode, passed if isinstance(passed, logging.LogRecord) else record)

    @property
    def outbox(self) -> Path:
        """The folder it writes to."""
        return self._pool.outbox

    @property
    def submit(self) -> Callable[[Callable[[Any], bytes | None], Any], bool | None]:
        """Keep the line that a function makes of an item (None keeps nothing), as `emit` does with a record's."""
        return self._pool.submit

    @property
    def reentrant_calls(self) -> int:
        """Events so far that were logged from inside the logging of another (a processor, a signal handler)."""
        return self._pool.reentrant

    def divert(self, node: Node | None) -> None:
        """Write into another node's outbox (`calyx-telemetry doctor` does, to leave nothing here); None ends that."""
        if self._own_pool is None:
            self._own_pool = self._pool
        if self._pool is not self._own_pool:
            self._pool.close()
        self._pool = (
            self._own_pool if node is None else WriterPool(node, "diverted", replace(self._options, identity=False))
        )
        self._choose_way()

    def seal(self) -> None:
        """Seal the open chunk so that the next export takes it; logging goes on in a new one."""
        self._pool.seal()

    def close(self) -> None:
        """Write the end line and seal; called by `logging.shutdown` and by the next dictConfig."""
        if sys._getframe(1).f_code is logging.basicConfig.__code__ and not names_captured_by(self):
            say(
                "logging.basicConfig(force=True) has taken the OutboxHandler off the root logger, and records do not "
                'reach the outbox any more: give it "capture": ["root"], or configure it afterwards'
            )
        self._pool.close()
        super().close()
