"""Print records readably on standard error, with structlog's ConsoleRenderer.

For programs that have none of their own: `calyx_logging.setup()` and `configure_structlog(console=True)` add it.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from datetime import datetime
from importlib.util import find_spec
from typing import Any, TextIO

from calyx_logging.events.formatter import StructlogMessage

__all__ = ["ConsoleFormatter", "ConsoleHandler", "ensure_console", "has_console"]

_USUAL = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes of a record that are no fields."""

_OWN = ("timestamp", "level", "event", "logger")
"""Names that the line has itself; fields of these names get a `_`."""


class ConsoleFormatter(logging.Formatter):
    """Formats a record as one line: local time, level, message, logger, fields; then the exception."""

    def __init__(self) -> None:
        super().__init__()
        self._renderers: dict[bool, Callable[..., Any]] = {}
        self.colours = False

    def format(self, record: logging.LogRecord) -> str:
        """Return the text."""
        message = record.msg
        if isinstance(message, StructlogMessage):
            fields = {**message}
            text = str(fields.pop("event", ""))
        else:
            fields = {name: value for name, value in vars(record).items() if name not in _USUAL}
            text = record.getMessage()
        event = {
            **{
                name if name not in ("timestamp", "level", "event", "logger") else f"{name}_": fields[name]
                for name in fields
            },
            "timestamp": f"{datetime.fromtimestamp(record.created):%H:%M:%S}",  # the reader's own time
            "level": record.levelname.lower(),
            "event": text,
            "logger": record.name,
        }
        if record.exc_info:
            event["exc_info"] = record.exc_info
        elif record.exc_text:
            event["exception"] = record.exc_text
        if record.stack_info:
            event["stack"] = record.stack_info
        return str(self._renderer()(None, "", event))

    def _renderer(self) -> Callable[..., Any]:
        if self.colours not in self._renderers:
            from structlog.dev import ConsoleRenderer, plain_traceback

            self._renderers[self.colours] = ConsoleRenderer(colors=self.colours, exception_formatter=plain_traceback)
        return self._renderers[self.colours]


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Writes records to standard error as it is at the time, which notebooks and test runners replace."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)
        self._formatter = ConsoleFormatter()
        self.setFormatter(self._formatter)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Standard error; pythonw has none."""
        return sys.stderr

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, if there is a standard error."""
        if sys.stderr is not None:
            self._formatter.colours = _is_colourful(sys.stderr)
            super().emit(record)


def has_console(logger: logging.Logger | None = None) -> bool:
    """Tell whether a handler of the logger (default: the root logger) writes to standard output or standard error."""
    streams = {id(stream) for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__) if stream is not None}
    return any(
        isinstance(handler, ConsoleHandler)
        or id(getattr(handler, "stream", None)) in streams
        or type(handler).__name__ == "RichHandler"
        for handler in (logger or logging.getLogger()).handlers
    )


def ensure_console() -> None:
    """Give the root logger a console unless it has one."""
    if not has_console():
        logging.getLogger().addHandler(ConsoleHandler())


def _is_colourful(stream: TextIO) -> bool:
    try:
        is_terminal = stream.isatty()
    except (AttributeError, ValueError):  # it is no usual one, or closed
        return False
    return (
        is_terminal and "NO_COLOR" not in os.environ and (sys.platform != "win32" or find_spec("colorama") is not None)
    )
