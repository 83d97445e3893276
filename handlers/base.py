"""Base class of this library's handlers: holds the formatter, bound to the handler's stamp."""

from __future__ import annotations

import atexit
import logging
import os
import secrets
import sys
import weakref
from collections import deque
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar

from calyx_logging.compiled import use
from calyx_logging.core.validation import whole_bytes
from calyx_logging.errors import CalyxError, ConfigError, say
from calyx_logging.events.event import MIN_MAX_EVENT_BYTES
from calyx_logging.events.formatter import EventFormatter
from calyx_logging.events.stamp import StampEvent
from calyx_logging.format.chunk import MAX_LINE
from calyx_logging.node import Node

__all__ = ["EventHandler", "check_flags", "check_root", "say_last"]


class EventHandler(logging.Handler):
    """A handler that writes event lines; call `prepare` before the base's `__init__`, which sets the formatter."""

    __slots__ = ("_way",)
    _way: object
    """The compiled core's way for plain records, where there is one."""

    alive: ClassVar[weakref.WeakSet[EventHandler]] = weakref.WeakSet()
    """All handlers of this kind in the process, attached to a logger or not."""

    _stamp: StampEvent
    _max_event_bytes: int
    _token: str
    _event_formatter: EventFormatter

    def prepare(self, node: Node, source: str, max_event_bytes: object) -> None:
        """Set the options that all handlers share.

        Raises:
            ConfigError: an option has a bad value.
        """
        self._max_event_bytes = whole_bytes("max_event_bytes", max_event_bytes, MIN_MAX_EVENT_BYTES, MAX_LINE // 2)
        self._stamp = StampEvent(node.id, source)
        self._token = secrets.token_hex(8)
        self._event_formatter = EventFormatter().bound_to(self._stamp, self._max_event_bytes)

    def createLock(self) -> None:  # noqa: N802 - logging's name
        """Count among the handlers from now on: one that could not be made has no lock, and nothing to close."""
        super().createLock()
        EventHandler.alive.add(self)

    def setFormatter(self, fmt: logging.Formatter | None) -> None:  # noqa: N802 - logging's name
        """Use an EventFormatter's options; None restores the defaults.

        Raises:
            ConfigError: the formatter is of another kind, so its lines would not be events.
        """
        if fmt is not None and not isinstance(fmt, EventFormatter):
            if sys._getframe(1).f_code is logging.basicConfig.__code__:
                return  # it gives one to every handler that has none
            raise ConfigError(
                f"option 'formatter' is a {type(fmt).__module__}.{type(fmt).__name__}",
                hint=f"{type(self).__name__} takes a calyx_logging.EventFormatter, or none at all",
            )
        super().setFormatter(fmt)
        self._event_formatter = (fmt or EventFormatter()).bound_to(self._stamp, self._max_event_bytes)
        self._choose_way()

    def _choose_way(self) -> None:
        """Choose how plain records are handled, now that the formatter or the pool is another one; for subclasses."""

    @property
    def event_formatter(self) -> EventFormatter:
        """The formatter, bound to this handler."""
        return self._event_formatter


use(handler_way=vars(EventHandler)["_way"])

_closed_at_exit: list[logging.Handler] = []
"""Keeps handlers until then, though who has them lets them go."""


def _be_closed_first() -> None:
    """Have `logging.shutdown` close our handlers, and before all others, whose closing may raise and end it.

    It closes the last one of its list first; a dictConfig of the program may have emptied that list.
    """
    known: list[weakref.ref[logging.Handler]] | None = getattr(logging, "_handlerList", None)
    if known is None:
        return
    _closed_at_exit.extend(EventHandler.alive)
    known[:] = [ref for ref in known if ref() not in _closed_at_exit]
    known += [weakref.ref(handler) for handler in _closed_at_exit]


atexit.register(_be_closed_first)


_unsaid: deque[weakref.ref[CalyxError]] = deque(maxlen=8)
_hooks_before: list[Any] = []
_MAX_CAUSES = 100


def say_last(error: CalyxError) -> None:
    """Have an error that leads to the end of the program said again below its traceback, where one looks first.

    `dictConfig` raises another error from it, whose message says only which handler it was.
    """
    _unsaid.append(weakref.ref(error))
    if not _hooks_before:
        _hooks_before.append(sys.excepthook)
        sys.excepthook = _say_cause


def _say_cause(kind: type[BaseException], value: BaseException, trace: TracebackType | None) -> None:
    _hooks_before[0](kind, value, trace)
    known = [error for error in (ref() for ref in _unsaid) if error is not None]
    cause = value.__cause__
    for _ in range(_MAX_CAUSES):
        if cause is None:
            return
        if any(cause is error for error in known):
            say(str(cause))
            return
        cause = cause.__cause__


def check_root(root: object) -> None:
    """Raise `ConfigError` unless `root` is None or a non-empty path."""
    if root is not None and not (isinstance(root, (str, os.PathLike)) and os.fspath(root)):
        raise ConfigError(f"option 'root' is {root!r}: give the path of a folder")


def check_flags(flags: Mapping[str, object]) -> None:
    """Raise `ConfigError` unless all these options are true or false."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ConfigError(f"option {name!r} is {value!r}: give true or false")
