"""OutboxHandler: the `logging.Handler` that keeps every record in the node's outbox."""

from __future__ import annotations

import difflib
import logging
import os
import secrets
from collections.abc import Callable
from typing import Any

from calyx_logging.chunk import check_component
from calyx_logging.errors import ConfigError
from calyx_logging.event import (
    DEFAULT_MAX_EVENT_BYTES,
    DEFAULT_SOURCE,
    MIN_MAX_EVENT_BYTES,
    StampEvent,
    take,
)
from calyx_logging.fast_logger import install_fast_logger
from calyx_logging.formatter import EventFormatter
from calyx_logging.node import Node
from calyx_logging.options import WriterOptions, whole_bytes
from calyx_logging.recorder import Recorder

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
    "level",
    "formatter",
    "filters",
)


class OutboxHandler(logging.Handler):
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
        sync: when bytes are forced to the medium: `"seal"` (when a chunk is sealed), `"interval"` (and every
            `sync_interval` seconds), `"record"` (before each call returns).
        sync_interval: seconds.
        fast: install the fast logger (`calyx_logging.install_fast_logger`): the same records in less time, for all
            loggers of the process.
        level: as in every handler.

    Raises:
        ConfigError: an option is unknown or bad, or the outbox cannot be written or locked.
        NodeError: the root has no usable node id.
    """

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
        level: int | str = logging.NOTSET,
        **unknown: Any,
    ) -> None:
        _refuse_unknown(unknown)
        if root is not None and not (isinstance(root, (str, os.PathLike)) and os.fspath(root)):
            raise ConfigError(f"option 'root' is {root!r}: give the path of a folder")
        options = WriterOptions(max_bytes, max_age, sync, sync_interval)
        self._max_event_bytes = whole_bytes("max_event_bytes", max_event_bytes, MIN_MAX_EVENT_BYTES)
        if not isinstance(fast, bool):
            raise ConfigError(f"option 'fast' is {fast!r}: give true or false")
        component = check_component(component)
        node = Node.find(root)
        self._stamp = StampEvent(node.id, source)
        self._recorder = Recorder(node, component, options)
        self._token = secrets.token_hex(8)
        self._is_stock = (type(self).filter, type(self).emit) == (logging.Filterer.filter, OutboxHandler.emit)
        if fast:
            install_fast_logger()
        super().__init__(level)
        self._event_formatter = EventFormatter().bound_to(self._stamp, self._max_event_bytes)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - logging's name
        """Take an EventFormatter's options; None for the default ones.

        Raises:
            ConfigError: another kind of formatter, whose lines would be no events.
        """
        if fmt is not None and not isinstance(fmt, EventFormatter):
            raise ConfigError(
                f"option 'formatter' is a {type(fmt).__module__}.{type(fmt).__name__}",
                hint="OutboxHandler takes a calyx_logging.EventFormatter, or none at all",
            )
        super().setFormatter(fmt)
        self._event_formatter = (fmt or EventFormatter()).bound_to(self._stamp, self._max_event_bytes)

    def handle(self, record: logging.LogRecord) -> Any:
        """Filter and emit; without the handler's lock, because the recorder has its own, held for the write alone."""
        if self._is_stock and not self.filters:
            if take(record, self._token):
                self._recorder.submit(self._event_formatter.encode, record)
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
            self._recorder.submit(self._event_formatter.encode, record)

    @property
    def event_formatter(self) -> EventFormatter:
        """The formatter, bound to this handler."""
        return self._event_formatter

    @property
    def submit(self) -> Callable[[Callable[[Any], bytes | None], Any], None]:
        """Keep the line that a function makes of an item (None keeps nothing), as `emit` does with a record's."""
        return self._recorder.submit

    @property
    def reentrant_calls(self) -> int:
        """Events so far that were logged from inside the logging of another (a processor, a signal handler)."""
        return self._recorder.reentrant

    def seal(self) -> None:
        """Seal the open chunk so that the next export takes it; logging goes on in a new one."""
        self._recorder.seal()

    def close(self) -> None:
        """Write the end line and seal; called by `logging.shutdown` and by the next dictConfig."""
        self._recorder.close()
        super().close()


def _refuse_unknown(unknown: dict[str, Any]) -> None:
    if unknown:
        name = min(unknown)
        near = difflib.get_close_matches(name, _OPTIONS, 1)
        raise ConfigError(
            f"OutboxHandler has no option {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint=f"its options are {', '.join(_OPTIONS)}",
        )
